"""
Multiple imputation
===================

A regression on imputed values treats guesses as data: its standard errors are too small. Multiple imputation draws
values instead of using means, repeats the analysis on each completed table, and combines the results by Rubin's rules.
"""

# %%
# A coefficient with missing data
# -------------------------------
#
# How does the progression of diabetes depend on the body mass index, given age, blood pressure and blood values? Two
# cells in five are hidden.

import numpy as np
from sklearn.datasets import load_diabetes

from skdl import DeepImputer

X, y = load_diabetes(return_X_y=True, as_frame=True)
table = X[["age", "bmi", "bp", "s1", "s5"]].assign(progression=(y - y.mean()) / y.std())
table = table / table.std()
is_hidden = np.random.default_rng(0).random(table.shape) < 0.4
holes = table.mask(is_hidden)
print(f"{holes.notna().all(axis=1).sum()} of {len(holes)} rows have no hole")


def regression(table, column="bmi"):
    """A coefficient of ordinary least squares, and its variance."""
    A = np.column_stack([np.ones(len(table)), table.drop(columns="progression")])
    b = table["progression"].to_numpy()
    coefficients, squares, *_ = np.linalg.lstsq(A, b, rcond=None)
    covariance = np.linalg.inv(A.T @ A) * squares[0] / (len(A) - A.shape[1])
    at = 1 + list(table.columns).index(column)
    return coefficients[at], covariance[at, at]


# %%
# Draws and Rubin's rules
# -----------------------
#
# ``sample`` completes the table 20 times, drawing the missing cells of a row jointly. The coefficient is the mean of
# the 20 coefficients; its variance is the mean of their variances plus the variance between them (Rubin 1987). For
# standard errors the Gaussian alone is the better choice: its draws include how uncertain it is itself.

imputer = DeepImputer(strategy="gaussian", random_state=0).fit(holes)
N_DRAWS = 20
estimates, variances = np.transpose([regression(drawn) for drawn in imputer.sample(holes, N_DRAWS, random_state=1)])
pooled = estimates.mean(), variances.mean() + (1 + 1 / N_DRAWS) * estimates.var(ddof=1)

results = {
    "nothing hidden": regression(table),
    "rows without holes": regression(holes.dropna()),
    "one imputation by conditional means": regression(imputer.transform(holes)),
    f"{N_DRAWS} draws, Rubin's rules": pooled,
}
for name, (coefficient, variance) in results.items():
    print(f"{name:36} {coefficient:6.3f}  standard error {np.sqrt(variance):.3f}")

# %%
# Intervals
# ---------
#
# The imputed table is overconfident: its standard error is no larger than that of the complete table, although two
# cells in five were hidden. That of multiple imputation is larger, but smaller than that of the few complete rows.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
for i, (coefficient, variance) in enumerate(results.values()):
    ax.errorbar(coefficient, i, xerr=1.96 * np.sqrt(variance), fmt="o", capsize=4)
ax.set_yticks(range(len(results)), list(results))
ax.invert_yaxis()
ax.axvline(results["nothing hidden"][0], color="grey", linewidth=0.8)
ax.set(xlabel="coefficient of the body mass index, 95 % interval")
plt.show()
