"""
A loss of your own, and weighted samples
========================================

Two ways to tell a network what an error costs: a loss function in torch, if the cost depends on the error, and sample
weights, if it depends on the sample.
"""

# %%
# A loss of your own
# ------------------
#
# A shop orders stock before it knows the demand. Every item short loses a sale and costs four times as much as an item
# left over. Any function of torch tensors can be the loss, as long as it returns one number per sample; torch
# differentiates it.
#
# Targets are standardised for training, so the loss sees errors in units of the standard deviation of ``y``. A cost
# proportional to the error keeps its meaning; a cost with a threshold would need the threshold in those units.

import numpy as np
import torch

from skdl import MLPRegressor

SHORT, LEFT_OVER = 4.0, 1.0


def stock_cost(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cost of each order."""
    short = target - output
    return torch.where(short > 0, SHORT * short, -LEFT_OVER * short)


rng = np.random.default_rng(0)
temperature = rng.uniform(0, 30, size=(3000, 1))
mean_demand = 50 + 3 * temperature[:, 0] - 0.05 * (temperature[:, 0] - 15) ** 2
demand = rng.gamma(shape=8, scale=mean_demand / 8)
X_train, X_test, y_train, y_test = temperature[:2000], temperature[2000:], demand[:2000], demand[2000:]

settings = {"hidden_layer_sizes": (32, 32), "dropout": 0.0, "max_epochs": 40, "random_state": 0}
orders = {}
for name, loss in {"squared error": "squared_error", "cost of the shop": stock_cost}.items():
    orders[name] = MLPRegressor(loss=loss, **settings).fit(X_train, y_train).predict(X_test)
    cost = stock_cost(torch.as_tensor(orders[name]), torch.as_tensor(y_test)).mean()
    print(f"{name:16} cost per day {cost:5.1f}, demand met on {np.mean(orders[name] >= y_test):.0%} of days")

# %%
# The second network orders more than it expects to sell, and most where demand varies most. It has learned what theory
# says: the best order is the quantile ``SHORT / (SHORT + LEFT_OVER)`` of demand, here 80 %. ``loss="quantile",
# quantile=0.8`` is the same loss up to a factor; a custom function is for costs without a built-in loss.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.scatter(X_test, y_test, s=6, alpha=0.4, color="gray", label="demand")
order = X_test[:, 0].argsort()
for name, values in orders.items():
    ax.plot(X_test[order, 0], values[order], linewidth=2, label=name)
ax.set(xlabel="temperature", ylabel="items", title="Orders by the loss they were trained on")
ax.legend()
plt.show()

# %%
# Weighted samples
# ----------------
#
# A survey asked 1,500 people in a town and 150 in the country, although equally many live in each. Unweighted, the fit
# represents the people who were asked. With a weight of ten for each answer from the country, it represents the people
# who live there.
#
# The model does not know who lives where, so it cannot fit both groups: the weights decide which one it fits.

n_town, n_country = 1500, 150
age = rng.uniform(20, 80, size=(n_town + n_country, 1))
is_country = np.arange(len(age)) >= n_town
minutes = np.where(is_country, 65 - 0.5 * age[:, 0], 25 + 0.1 * age[:, 0]) + rng.normal(0, 4, len(age))
weight = np.where(is_country, n_town / n_country, 1.0)

ages = np.linspace(20, 80, 200)[:, None]
truth = (65 - 0.5 * ages[:, 0] + 25 + 0.1 * ages[:, 0]) / 2
fits = {
    "unweighted": MLPRegressor(**settings).fit(age, minutes).predict(ages),
    "weighted": MLPRegressor(**settings).fit(age, minutes, sample_weight=weight).predict(ages),
}
for name, values in fits.items():
    print(f"{name:10} mean distance from the population's mean: {np.abs(values - truth).mean():.1f} minutes")

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, chosen, color in [("town", ~is_country, "silver"), ("country", is_country, "dimgray")]:
    ax.scatter(age[chosen], minutes[chosen], s=6, color=color, label=f"answers, {name}")
for name, values in fits.items():
    ax.plot(ages, values, linewidth=2, label=name)
ax.plot(ages, truth, color="black", linestyle="--", label="mean of the population")
ax.set(xlabel="age", ylabel="minutes to the doctor", title="Whom the fit answers for")
ax.legend(ncols=2)
plt.show()
