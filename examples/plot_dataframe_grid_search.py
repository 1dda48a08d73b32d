"""
Tune a network on a raw data frame
==================================

A raw data frame with text columns and missing values goes into a network without any preparation, and scikit-learn's
own grid search tunes the learning rate and both penalties.
"""

# %%
# The data
# --------
#
# 344 penguins of three species, with text and numeric columns and some missing cells.

from sklearn.model_selection import train_test_split

from skdl.datasets import load_penguins

X, y = load_penguins(as_frame=True, return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)

print(X.dtypes.to_string())
print(f"\n{X.isna().any(axis=1).sum()} of {len(X)} rows have missing values")
X.head()

# %%
# The search
# ----------
#
# No imputer, no one-hot encoder, no scaler: the estimator learns all of that from the training rows of each fold.
#
# The species are so easy to tell apart that most candidates reach the same accuracy. The log loss still shows
# differences, because it also rewards justified confidence.

from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skdl import MLPClassifier

pipeline = make_pipeline(MLPClassifier(hidden_layer_sizes=(64, 32), max_epochs=60, random_state=0))
grid = {
    "mlpclassifier__learning_rate": [1e-3, 1e-2],
    "mlpclassifier__l1": [0, 1e-3],
    "mlpclassifier__l2": [0, 1e-2],
}
search = GridSearchCV(pipeline, grid, scoring="neg_log_loss", n_jobs=2)
# A depth of 0 shows the search as a whole, 1 would show each of its 40 fits too.
search.set_callbacks(ProgressBar(max_propagation_depth=0))
search.fit(X_train, y_train)

# %%
# The result
# ----------
#
# The test rows were not used for any choice.

best = search.best_estimator_
print(f"best parameters: {search.best_params_}")
print(f"log loss in cross-validation: {-search.best_score_:.3f}, on test rows: {-search.score(X_test, y_test):.3f}")
print(f"accuracy on test rows: {best.score(X_test, y_test):.3f}")

# %%
# The loss curves
# ---------------
#
# The best network, refitted with each of three learning rates. The test rows are only for display: they are not used
# for early stopping or any choice. Training losses are measured under dropout, so the dashed line may lie below the
# solid one; where it stays above, the network fits its training rows better than new ones.

import matplotlib.pyplot as plt
from sklearn.base import clone

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for color, learning_rate in zip(["C0", "C1", "C2"], [3e-4, 1e-3, 1e-2], strict=True):
    network = clone(best[-1]).set_params(learning_rate=learning_rate, early_stopping=False)
    history = network.fit(X_train, y_train, X_val=X_test, y_val=y_test).history_
    ax.plot(history["epoch"], history["loss"], color=color, label=f"learning_rate={learning_rate:g}")
    ax.plot(history["epoch"], history["validation_loss"], color=color, linestyle="--")
ax.plot([], [], color="gray", linestyle="--", label="on test rows")
ax.set(xlabel="epoch", ylabel="cross-entropy", yscale="log", title="Penguins: loss by learning rate")
ax.legend()
fig.savefig("penguins_loss_curves.png", dpi=150)
print("loss curves: penguins_loss_curves.png")
