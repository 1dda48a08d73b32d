"""
A network as a feature extractor
================================

A convolutional network trained on some digits turns images of others into features for a linear classifier. It is a
transformer like any other, and works in a pipeline.
"""

# %%
# A network that has seen half of the digits
# ------------------------------------------
#
# The network learns to tell 0 to 4 apart. ``transform`` returns the input of its output layer: 256 numbers per image.
# Residual blocks and label smoothing are left out, because the embeddings do worse with them on the digits below.

import numpy as np
from sklearn.datasets import load_digits

from skdl import CNNClassifier

X, y = load_digits(return_X_y=True)
is_known = y < 5
network = CNNClassifier(
    image_shape=(8, 8),
    residual=False,
    label_smoothing=0,
    augment={"shift": 0.05, "rotation": 5, "zoom": 0.05},
    max_epochs=15,
    random_state=0,
)
network.fit(X[is_known], y[is_known])

print(f"{is_known.sum()} images of digits 0 to 4 to train the network")
print(f"embeddings: {network.transform(X[~is_known]).shape}")

# %%
# Digits it has never seen
# ------------------------
#
# A logistic regression tells 5 to 9 apart, from the raw pixels or from the embeddings. ``FrozenEstimator`` keeps the
# network unchanged when the pipeline is fitted; without it the network would be retrained on the few images available.
# Each accuracy is on 500 other images of 5 to 9, averaged over ten draws.

from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

models = {
    "raw pixels": LogisticRegression(max_iter=2000),
    "embeddings": make_pipeline(FrozenEstimator(network), LogisticRegression(max_iter=2000)),
}
n_each = [5, 10, 20, 30, 50]
N_CLASSES, N_DRAWS = 5, 10
accuracy = {name: np.empty((len(n_each), N_DRAWS)) for name in models}
for i, n in enumerate(n_each):
    for draw in range(N_DRAWS):
        X_few, X_test, y_few, y_test = train_test_split(
            X[~is_known],
            y[~is_known],
            train_size=N_CLASSES * n,
            test_size=500,
            stratify=y[~is_known],
            random_state=draw,
        )
        for name, model in models.items():
            accuracy[name][i, draw] = model.fit(X_few, y_few).score(X_test, y_test)

print("images of each digit  " + "".join(f"{n:>8}" for n in n_each))
for name, values in accuracy.items():
    print(f"{name:22}" + "".join(f"{mean:8.3f}" for mean in values.mean(axis=1)))
better = (accuracy["embeddings"] > accuracy["raw pixels"]).sum(axis=1)
print(f"{'embeddings better in':22}" + "".join(f"{f'{n}/{N_DRAWS}':>8}" for n in better))

# %%
# Accuracy by number of images
# ----------------------------
#
# With 20 or more images of each digit, embeddings are the better features in nearly all draws, with up to about half
# fewer mistakes. With 5 or 10, neither is clearly better. The bands are one standard deviation of the draws.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, values in accuracy.items():
    mean, spread = values.mean(axis=1), values.std(axis=1)
    ax.plot(n_each, mean, marker="o", label=f"logistic regression on {name}")
    ax.fill_between(n_each, mean - spread, mean + spread, alpha=0.2)
ax.set(xlabel="training images of each digit", ylabel="accuracy", title="Digits 5 to 9, on held-out images")
ax.set_xticks(n_each)
ax.legend(loc="lower right")
plt.show()
