"""
Missing values in a pipeline
============================

Penguins with missing values, from the raw frame to a score: an imputer is a step of a pipeline like any other, and
learns only from the training folds.
"""

# %%
# Missing cells
# -------------
#
# The measurements of some penguins are missing, and the sex of others. To have true values to compare with, a fifth of
# the observed cells is also removed.

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from skdl import DeepImputer
from skdl.datasets import load_penguins

X, y = load_penguins(as_frame=True, return_X_y=True)
rng = np.random.default_rng(0)
holes = X.mask(rng.random(X.shape) < 0.2)
X_train, X_test, y_train, y_test = train_test_split(holes, y, stratify=y, random_state=0)
print(X_test.head().to_string())

# %%
# A completed frame
# -----------------
#
# ``transform`` fills the missing cells of new rows with what was learned from the training rows. Observed cells are
# returned unchanged, text columns as text columns. ``round_integers=True`` imputes whole numbers in columns of whole
# numbers, such as the year.

imputer = DeepImputer(round_integers=True, random_state=0).fit(X_train)
completed = imputer.transform(X_test)
print(completed.head().round(1).to_string())

# %%
# What it found
# -------------
#
# The true values of most missing cells are known here. For numbers, the root mean squared error, beside that of the
# column mean; for text, the share of wrong cells, beside that of the most frequent value. Measurements and the sex have
# clearly smaller errors; the year, of which the other columns say little, does not.

truth = X.loc[X_test.index]
lines = []
for column in X:
    is_hidden = X_test[column].isna() & truth[column].notna()
    found, true = completed.loc[is_hidden, column], truth.loc[is_hidden, column]
    if pd.api.types.is_numeric_dtype(X[column]):
        error, plain = np.sqrt(((found - true) ** 2).mean()), np.sqrt(((X_train[column].mean() - true) ** 2).mean())
    else:
        error, plain = (found != true).mean(), (X_train[column].mode()[0] != true).mean()
    lines.append([column, is_hidden.sum(), error, plain])
print(pd.DataFrame(lines, columns=["column", "hidden", "error", "mean or mode"]).round(3).to_string(index=False))

# %%
# In front of a classifier
# ------------------------
#
# Any classifier can follow. This one does not accept text or missing values by itself. It is clearly more accurate
# after either strategy of ``DeepImputer`` than after the most frequent value of each column.

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def classifier(imputer):
    text = make_column_selector(dtype_exclude="number")
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), text), remainder=StandardScaler())
    return make_pipeline(imputer.set_output(transform="pandas"), encode, LogisticRegression(max_iter=1000))


scores = {
    "DeepImputer": cross_val_score(classifier(DeepImputer(random_state=0)), holes, y, cv=5),
    "DeepImputer(strategy='gaussian')": cross_val_score(
        classifier(DeepImputer(strategy="gaussian", random_state=0)), holes, y, cv=5
    ),
    "most frequent value": cross_val_score(classifier(SimpleImputer(strategy="most_frequent")), holes, y, cv=5),
}
for name, score in scores.items():
    print(f"{name:34} accuracy {score.mean():.3f}")

# %%
# Body mass of the penguins whose mass was missing
# ------------------------------------------------

import matplotlib.pyplot as plt

is_hidden = X_test["body_mass_g"].isna() & truth["body_mass_g"].notna()
true, found = truth.loc[is_hidden, "body_mass_g"], completed.loc[is_hidden, "body_mass_g"]
std = imputer.imputation_std(X_test)[is_hidden, list(X).index("body_mass_g")]
fig, ax = plt.subplots(figsize=(5, 5), layout="constrained")
ax.errorbar(true, found, yerr=std, fmt="o", ecolor="lightgrey", label="imputed, one standard deviation")
low, high = true.min(), true.max()
ax.plot([low, high], [low, high], color="black", linewidth=0.8)
ax.axhline(X_train["body_mass_g"].mean(), linestyle=":", color="grey", label="mean of the column")
ax.set(xlabel="true body mass in g", ylabel="imputed body mass in g", title="Body mass of new penguins")
ax.legend()
plt.show()
