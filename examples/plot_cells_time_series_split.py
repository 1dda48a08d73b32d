"""
Which cell?
===========

Recurrent cells compared by scikit-learn's own search, on folds that never look into the future.
"""

# %%
# The data
# --------
#
# Synthetic data with cycles of uneven length and height, like those of sunspots: a noisy oscillator.

import numpy as np

from skdl import window

rng = np.random.default_rng(0)
n_steps, phase, height = 1500, 0.0, 1.0
spots = np.zeros(n_steps)
for t in range(n_steps):
    phase += 2 * np.pi / 60 * np.exp(0.2 * rng.normal())
    height = 0.98 * height + 0.02 * np.exp(rng.normal())
    spots[t] = 100 * height * np.sin(phase / 2) ** 2 + rng.normal(0, 5)
X, y = window(spots, lags=60, horizon=12, step=3)
print(X.shape, y.shape)

# %%
# The search
# ----------
#
# ``TimeSeriesSplit`` trains on earlier windows and tests on later ones. Windows overlap, so ``gap`` keeps the targets
# of the training windows out of the test windows: a horizon of 12 steps, at 3 steps per window. ``skip=None`` compares
# the networks alone.

from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from skdl import RNNRegressor

network = RNNRegressor(hidden_size=16, n_members=1, max_epochs=15, early_stopping=False, skip=None, random_state=0)
grid = {"cell": ["gru", "lstm", "rnn"], "learning_rate": [0.003, 0.01]}
search = GridSearchCV(
    network, grid, cv=TimeSeriesSplit(3, gap=4), scoring="neg_root_mean_squared_error", refit=False
).fit(X, y)

for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{parameters['cell']:4s}  learning rate {parameters['learning_rate']:.3f}  error {-score:5.1f}")
print("chosen:", search.best_params_)

# %%
# The picture
# -----------
#
# The plain recurrent cell does as well as the gated ones, at either learning rate. Those need the higher one: at 0.003
# their errors are clearly larger, at 0.01 all three are close.

import matplotlib.pyplot as plt
import pandas as pd

table = pd.DataFrame(search.cv_results_["params"]).assign(error=-search.cv_results_["mean_test_score"])
ax = table.pivot(index="cell", columns="learning_rate", values="error").plot.bar(figsize=(6, 3.5), rot=0)
ax.set(ylabel="error on later windows", xlabel="")
ax.figure.tight_layout()
plt.show()
