"""
Search the augmentation
=======================

With few images, augmentation matters as much as the network. ``augment`` is a parameter like any other, so
scikit-learn's own search can choose it.
"""

# %%
# The candidates
# --------------
#
# A hundred digits for training, ten of each, and the other 1,697 to check the choice afterwards. One candidate is there
# as a warning: a mirrored 3 is not a digit.

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from skdl import CNNClassifier, train_together

digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images, digits.target, train_size=100, stratify=digits.target, random_state=0
)

moved = {"shift": 0.15, "rotation": 15, "zoom": 0.15}
candidates = {
    "none": None,
    "mirror": {"flip": True},
    "cut a square": {"cutout": 0.3},
    "a little of each": {"shift": 0.05, "rotation": 5, "zoom": 0.05},
    "shift": {"shift": 0.15},
    "shift, turn, zoom": moved,
    "shift, turn, zoom, mix": {**moved, "mixup": 0.3},
}

# %%
# The search
# ----------
#
# A small network without residual blocks, because it trains quickly, and five folds, so that each network sees 80
# images. Candidates with equally many mistakes, common with so few images, differ in their log loss.
#
# Inside ``train_together`` the search gives the same results as outside. Convolutional networks are trained one after
# the other there, and are no faster on a CPU; the report of the run says what was trained.

network = CNNClassifier(residual=False, label_smoothing=0, max_epochs=50, random_state=0)
grid = {"augment": list(candidates.values())}
with train_together() as run:
    search = GridSearchCV(network, grid, scoring=["neg_log_loss", "accuracy"], refit="neg_log_loss", cv=5)
    search.fit(X_train, y_train)

print(f"{sum(stack.n_models for stack in run.report_)} networks trained")
print(f"chosen: {search.best_params_}")

# %%
# Was the choice good?
# --------------------
#
# Each candidate, refitted on all hundred images and scored on those not used in the search. This is only a check;
# nothing is chosen by it.
#
# By log loss on held-out images, the candidate chosen by the search is level with the best, and better than training
# without augmentation. The order of the others is rough: "a little of each" is well behind the first in the search, and
# nearly ties with it on held-out images. Mirroring digits is worse than no augmentation at all. Mixing images costs
# too: combined with moving them, it would need more than fifty epochs.

import numpy as np
from sklearn.base import clone
from sklearn.metrics import log_loss

results = search.cv_results_
n_folds = search.n_splits_
folds = -np.array([results[f"split{k}_test_neg_log_loss"] for k in range(n_folds)])
held_out = []
print(f"{'':24}  cross-validation      held-out images")
print(f"{'':24} log loss  accuracy    log loss  accuracy")
for i, (name, augment) in enumerate(candidates.items()):
    fitted = clone(network).set_params(augment=augment).fit(X_train, y_train)
    held_out.append(log_loss(y_test, fitted.predict_proba(X_test)))
    scores = folds[:, i].mean(), results["mean_test_accuracy"][i], held_out[-1], fitted.score(X_test, y_test)
    print(f"{name:24} {scores[0]:8.3f} {scores[1]:9.3f} {scores[2]:11.3f} {scores[3]:9.3f}")

# %%
# Scores by candidate
# -------------------
#
# The scores of one candidate's folds, 20 images each, mostly vary about as much as the candidates do. All candidates
# are scored on the same folds, which makes their means easier to compare than the dots suggest; still, with a hundred
# images a search tells good from harmful rather than best from second best.

import matplotlib.pyplot as plt

order = folds.mean(axis=0).argsort()[::-1]
names = list(candidates)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
rows = np.arange(len(order))
ax.scatter(folds[:, order], np.tile(rows, (n_folds, 1)), s=14, color="silver", label="one fold")
ax.scatter(folds.mean(axis=0)[order], rows, s=60, color="C0", label="mean of the folds", zorder=3)
ax.scatter(np.array(held_out)[order], rows, s=60, marker="x", color="C1", label="held-out images", zorder=3)
ax.set_yticks(rows, [names[i] for i in order])
ax.set(xlabel="log loss", title="Digits, 100 training images: log loss by augmentation")
fig.legend(loc="outside lower center", ncols=3)
plt.show()
