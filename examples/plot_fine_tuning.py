"""
Fine-tuning on few images
=========================

A network pretrained on some digits is fine-tuned on a few images of others: what it has learned about strokes carries
over.
"""

# %%
# Two networks to start from
# --------------------------
#
# Both know only the digits 0 to 4. The first tells the five apart. The second sees each image in four orientations and
# predicts digit and orientation: twenty classes from the same images, a harder task.
#
# All networks of this example are plain ones, without residual blocks or label smoothing, and with the same
# augmentation.

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdl import CNNClassifier

digits = load_digits()
X, y = digits.images, digits.target
is_known = y < 5
turned = np.concatenate([np.rot90(X[is_known], k, axes=(1, 2)) for k in range(4)])
digit_and_turn = np.concatenate([y[is_known] + 10 * k for k in range(4)])

plain = {
    "residual": False,
    "label_smoothing": 0,
    "augment": {"shift": 0.05, "rotation": 5, "zoom": 0.05},
}
upright_network = CNNClassifier(**plain, max_epochs=15, random_state=0).fit(X[is_known], y[is_known])
turned_network = CNNClassifier(**plain, max_epochs=15, random_state=0).fit(turned, digit_and_turn)

# %%
# What to try
# -----------
#
# The task is to tell 5 to 9 apart from twenty images of each. Half of the images of these digits are for choosing
# settings, the other half is kept for testing. ``backbone`` takes the fitted network; its output layer is replaced, and
# ``freeze`` says which of the layers below keep their weights. The new output layer starts untrained, so it may need a
# higher learning rate than the rest: ``head_lr_factor``. The learning rate of the network from scratch is chosen, too.
#
# Each error is measured on the remaining images of that half after ten epochs, and is the mean over eight draws of the
# hundred training images. For either network, the best error comes from training the layers further: features for 0 to
# 4 are not quite enough for 5 to 9. The network trained on rotated digits is the better start.

X_choose, X_test, y_choose, y_test = train_test_split(
    X[~is_known], y[~is_known], test_size=0.5, stratify=y[~is_known], random_state=0
)
N_CLASSES, N_DRAWS = 5, 8
upright, with_turns = {"backbone": upright_network.network_}, {"backbone": turned_network.network_}
from_scratch = {
    "learning_rate=0.001": {"learning_rate": 0.001},
    "learning_rate=0.003": {"learning_rate": 0.003},
    "learning_rate=0.01": {"learning_rate": 0.01},
}
fine_tuned = {
    "upright, freeze='all'": {**upright, "freeze": "all"},
    "upright, freeze='all', head_lr_factor=10": {**upright, "freeze": "all", "head_lr_factor": 10},
    "upright, freeze=None": upright,
    "upright, freeze=None, learning_rate=0.01": {**upright, "learning_rate": 0.01},
    "turned, freeze='all'": {**with_turns, "freeze": "all"},
    "turned, freeze='all', head_lr_factor=10": {**with_turns, "freeze": "all", "head_lr_factor": 10},
    "turned, freeze=None": with_turns,
    "turned, freeze=None, head_lr_factor=3": {**with_turns, "head_lr_factor": 3},
    "turned, freeze=None, learning_rate=0.01": {**with_turns, "learning_rate": 0.01},
}


def mean_error(settings: dict, n_each: int, max_epochs: int = 10, *, is_test: bool = False) -> float:
    """Share of wrong images: of the half for testing, or of the rest of the half for choosing."""
    errors = []
    for draw in range(N_DRAWS):
        X_few, X_rest, y_few, y_rest = train_test_split(
            X_choose, y_choose, train_size=N_CLASSES * n_each, stratify=y_choose, random_state=draw
        )
        network = CNNClassifier(**{"max_epochs": max_epochs, "random_state": draw, **plain, **settings})
        network.fit(X_few, y_few)
        errors.append(1 - (network.score(X_test, y_test) if is_test else network.score(X_rest, y_rest)))
    return float(np.mean(errors))


chosen = {}
for title, candidates in {"from scratch": from_scratch, "fine-tuned": fine_tuned}.items():
    errors = {name: mean_error(settings, 20) for name, settings in candidates.items()}
    best = min(errors, key=errors.get)
    chosen[f"{title}: {best}"] = candidates[best]
    print(title)
    for name, error in errors.items():
        print(f"  {name:42} error {error:.3f}" + (" <- chosen" if name == best else ""))

# %%
# On the other half
# -----------------
#
# Both chosen candidates, now also with fewer and more images than they were chosen with. After ten epochs, with twenty
# images of each digit, the fine-tuned network makes clearly fewer mistakes. With five the two are closer, and which is
# ahead depends on rounding: the settings were chosen on twenty. Training from scratch for forty epochs makes up part of
# the difference.

n_each = [5, 10, 20, 50]
errors = {name: np.array([mean_error(settings, n, is_test=True) for n in n_each]) for name, settings in chosen.items()}
longer = [mean_error(settings, 20, 40, is_test=True) for settings in chosen.values()]
scratch, tuned = errors.values()
print(f"{'images of each digit':22}" + "".join(f"{n:>8}" for n in n_each))
print(f"{'from scratch':22}" + "".join(f"{error:>8.3f}" for error in scratch))
print(f"{'fine-tuned':22}" + "".join(f"{error:>8.3f}" for error in tuned))
print(f"{'less error by':22}" + "".join(f"{1 - ratio:>8.0%}" for ratio in tuned / scratch))
print(f"20 images of each, 40 epochs: {longer[0]:.3f} from scratch, {longer[1]:.3f} fine-tuned")

# %%
# Error by number of images
# -------------------------
#
# Both axes are logarithmic, so equal distances are equal ratios.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, values in errors.items():
    ax.plot(n_each, values, marker="o", label=name)
ax.set(xscale="log", yscale="log", xlabel="training images of each digit", ylabel="error")
ax.set_title("Digits 5 to 9, ten epochs, held-out images")
ax.set_xticks(n_each, n_each)
ticks = [0.01, 0.02, 0.05, 0.1, 0.2]
ax.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
ax.minorticks_off()
ax.legend()
plt.show()
