"""
Imputers compared
=================

A third of the cells of several tables is hidden and imputed by ``DeepImputer`` and by scikit-learn's imputers. How
large are the errors, in the rows used for fitting and in new ones, and how long does it take?
"""

# %%
# Measure
# -------
#
# The error is the root mean squared error of hidden cells, each column divided by its standard deviation: imputing the
# column mean has an error of about 1. With one split and one draw of hidden cells, differences of a few percent mean
# nothing.

import warnings
from time import perf_counter

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from skdl import DeepImputer

imputers = {
    "mean": SimpleImputer(),
    "5 nearest neighbours": KNNImputer(),
    "iterative, Bayesian ridge": IterativeImputer(random_state=0),
    "iterative, 20 extra trees": IterativeImputer(ExtraTreesRegressor(20), max_iter=3, random_state=0),
    "DeepImputer, gaussian": DeepImputer(strategy="gaussian", random_state=0),
    "DeepImputer": DeepImputer(random_state=0),
}
datasets = {load.__name__.removeprefix("load_"): load().data for load in (load_iris, load_wine, load_diabetes)}
datasets["breast_cancer"] = load_breast_cancer().data[:, :10]


def measured(imputer, X, rng):
    """Error in seen and unseen rows, and seconds."""
    is_hidden = rng.random(X.shape) < 0.3
    holes = np.where(is_hidden, np.nan, X)
    n_seen = int(0.7 * len(X))
    started = perf_counter()
    imputer.fit(holes[:n_seen])
    seconds = perf_counter() - started
    error = ((imputer.transform(holes) - X) / X[:n_seen].std(axis=0)) ** 2
    parts = slice(n_seen), slice(n_seen, None)
    return *(np.sqrt(error[part][is_hidden[part]].mean()) for part in parts), seconds


results = {}
with warnings.catch_warnings():
    # Rounds of an iterative imputer that did not settle are part of what is compared.
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name, X in datasets.items():
        X = X[np.random.default_rng(0).permutation(len(X))]
        print(f"\n{name:28}   seen  unseen  seconds")
        for method, imputer in imputers.items():
            results[name, method] = measured(imputer, X, np.random.default_rng(1))
            print("{:28} {:6.3f}  {:6.3f}  {:7.2f}".format(method, *results[name, method]))

# %%
# New rows
# --------
#
# On diabetes and breast_cancer both strategies of ``DeepImputer`` have clearly smaller errors than the others, in seen
# rows and in new ones. On iris and wine, of fewer than 200 rows, the order of the better imputers is chance. The
# Gaussian alone takes a fraction of the time of the iterative imputers.

import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, len(datasets), figsize=(11, 3.2), sharey=True, layout="constrained")
for ax, name in zip(axes, datasets, strict=True):
    ax.barh(list(imputers), [results[name, method][1] for method in imputers], color="tab:blue")
    ax.set(title=name, xlabel="error in new rows")
axes[0].invert_yaxis()
plt.show()
