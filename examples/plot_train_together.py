"""
A whole search trained as one
=============================

A grid over two parameters needs many networks of the same shape. ``train_together`` trains them side by side, inside
scikit-learn's own search.
"""

# %%
# The search
# ----------
#
# Handwritten digits of 8 x 8 pixels. Eight learning rates times six strengths of the ``l1`` penalty, on three folds:
# 144 networks that differ only in a few numbers and in their training rows.

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from skdl import MLPClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=600, stratify=y, random_state=0)

network = MLPClassifier(
    hidden_layer_sizes=(32,), numeric_embedding=None, batch_size=32, max_epochs=10, early_stopping=False, random_state=0
)
grid = {"learning_rate": np.logspace(-3, 0, 8), "l1": [0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}

# %%
# One after another, and together
# -------------------------------
#
# The search object is the same both times. Inside the context its fits run in threads, wait for each other before they
# train, and are trained as a few stacks.

import time

from skdl import train_together


def timed_search() -> tuple[GridSearchCV, float]:
    started = time.perf_counter()
    search = GridSearchCV(network, grid, scoring="neg_log_loss", cv=3).fit(X_train, y_train)
    return search, time.perf_counter() - started


alone, seconds_alone = timed_search()
with train_together() as run:
    together, seconds_together = timed_search()

print(f"one after another: {seconds_alone:5.1f} s")
print(f"together:          {seconds_together:5.1f} s, {seconds_alone / seconds_together:.1f} times as fast")

# %%
# The report of the run lists the stacks, with the number of networks and the time of each. The last one is the refit, a
# single network. With two cores, two stacks are trained at a time.

print(run.report_)

# %%
# The same results
# ----------------
#
# The training of a network does not depend on the others in its stack. Scores agree up to floating-point rounding.
# Where there is any, the networks at the largest learning rate amplify it most: their training is close to chaotic.

distance = np.abs(together.cv_results_["mean_test_score"] / alone.cv_results_["mean_test_score"] - 1)
print(f"relative difference of the mean scores: median {np.median(distance):.0e}, largest {distance.max():.0e}")
for name, search in {"together": together, "alone": alone}.items():
    chosen = ", ".join(f"{parameter}={value:.3g}" for parameter, value in search.best_params_.items())
    print(f"chosen {name}: {chosen}")
print(f"accuracy on test rows: {together.best_estimator_.score(X_test, y_test):.3f}")

# %%
# The map
# -------
#
# A search this cheap can map a whole plane. The plot shows the log loss on the folds' validation rows, darker is
# better, and the chosen candidate. A strong penalty leaves no weights to learn with, and the learning rate has a broad
# optimum with a steep edge on its right, beyond which training fails.

import matplotlib.pyplot as plt

shape = len(grid["l1"]), len(grid["learning_rate"])
loss = -together.cv_results_["mean_test_score"].reshape(shape)
fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
image = ax.imshow(loss, cmap="viridis", norm="log", aspect="auto", vmax=np.log(10))
for (row, column), value in np.ndenumerate(loss):
    ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value < 1 else "black")
best_row, best_column = np.unravel_index(loss.argmin(), shape)
ax.add_patch(plt.Rectangle((best_column - 0.5, best_row - 0.5), 1, 1, fill=False, edgecolor="C3", linewidth=2.5))
ax.set_xticks(range(shape[1]), [f"{rate:.2g}" for rate in grid["learning_rate"]])
ax.set_yticks(range(shape[0]), [f"{l1:g}" for l1 in grid["l1"]])
ax.set(xlabel="learning_rate", ylabel="l1", title="Digits: log loss in cross-validation, 144 networks")
bar = fig.colorbar(image, ax=ax, label="log loss", ticks=[0.2, 0.5, 1, 2], format="%g")
bar.ax.minorticks_off()
plt.show()
