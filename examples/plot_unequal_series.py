"""
Series of unequal lengths
=========================

Gestures, machine cycles, appliances: every series has its own length. Pass a list of arrays as it is.
"""

# %%
# The data
# --------
#
# Three kinds of synthetic pulses in two channels, from 30 to 150 steps long. They differ in how the second channel
# follows the first one, wherever in the series the pulse occurs.

import numpy as np

rng = np.random.default_rng(0)


def pulse(kind: int) -> np.ndarray:
    n_steps = rng.integers(30, 150)
    steps, place = np.arange(n_steps), rng.uniform(8, n_steps - 12)
    first = np.exp(-(((steps - place) / 4) ** 2))
    delay = (-4, 0, 4)[kind]
    second = np.exp(-(((steps - place - delay) / 4) ** 2))
    return np.stack([first, second]) + rng.normal(0, 0.15, (2, n_steps))


y = rng.integers(3, size=360)
X = [pulse(kind) for kind in y]
X_train, X_test, y_train, y_test = X[:240], X[240:], y[:240], y[240:]

# %%
# The fit
# -------
#
# Batches contain series of similar lengths and are as long as the longest of them. Padding does not affect predictions.

from skdl import RNNClassifier

classifier = RNNClassifier(max_epochs=15, hidden_size=32, n_members=2, random_state=0).fit(X_train, y_train)
print(f"accuracy {classifier.score(X_test, y_test):.3f}")
print({part: round(weight, 2) for part, weight in classifier.blend_weights_.items()})

# %%
# The network and the closed-form path by themselves
# --------------------------------------------------
#
# ``skip=None`` leaves out the ridge regression on random convolutions; setting the weight of the network to 0, for
# illustration, leaves only the regression. Here the network alone does as well as both together, and the regression
# alone is clearly worse.

network = RNNClassifier(max_epochs=15, hidden_size=32, n_members=2, skip=None, random_state=0).fit(X_train, y_train)
print(f"network alone {network.score(X_test, y_test):.3f}")
weights = classifier.blend_weights_
classifier.blend_weights_ = {"network": 0.0, "skip": weights["skip"]}
print(f"skip alone    {classifier.score(X_test, y_test):.3f}")
classifier.blend_weights_ = weights

# %%
# Where it looks
# --------------
#
# The steps of each channel that support the predicted class.

import matplotlib.pyplot as plt

shown = X_test[:3]
maps = network.explain(shown, method="integrated_gradients")
fig, axes = plt.subplots(3, 1, figsize=(8, 5), layout="constrained")
for ax, series, attribution, label in zip(axes, shown, maps, network.predict(shown), strict=True):
    n_steps = series.shape[1]
    for channel in range(2):
        ax.plot(series[channel], color=f"C{channel}")
        ax.bar(np.arange(n_steps), attribution[channel, :n_steps], color=f"C{channel}", alpha=0.4)
    ax.set_ylabel(f"kind {label}")
axes[-1].set_xlabel("step")
plt.show()
