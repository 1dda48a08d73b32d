"""
A forecast with bands
=====================

The load of a synthetic power grid, hour by hour, with daily and weekly cycles, weather and a drifting level. ``window``
cuts it into windows, a recurrent network forecasts the next day, and three quantiles show the uncertainty.
"""

# %%
# The data
# --------
#
# A long table as it comes out of a database: one row per hour, the time in a column, and a weather forecast known a day
# ahead.

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n_hours = 24 * 7 * 16
when = pd.date_range("2024-01-01", periods=n_hours, freq="h")
hour, day = when.hour.to_numpy(), when.day_of_week.to_numpy()
temperature = 12 + 6 * np.sin((hour - 9) / 24 * 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, n_hours))
level = 400 + np.cumsum(rng.normal(0, 1.0, n_hours))
work = np.where(day < 5, 80, 20) * np.exp(-(((hour - 13) / 5.0) ** 2))
load = level + work + 3 * np.maximum(temperature - 18, 0) + rng.normal(0, 6, n_hours)
table = pd.DataFrame({"when": when, "load": load, "temperature": temperature, "hour": hour, "day": day})
table.tail(3)

# %%
# Windows
# -------
#
# Four days of hourly history, one day to forecast, one window every six hours. What is known about the day ahead, the
# temperature forecast and the calendar, is shifted ahead of the load by the horizon.

from skdl import window

X, y, index = window(
    table,
    target="load",
    time="when",
    lags=96,
    horizon=24,
    step=6,
    features=[],
    known_future=["temperature", "hour", "day"],
    return_index=True,
)
print(X.shape, y.shape, index["time"][0])

# %%
# Windows are in time order, so the last ones are the test set. Four windows in between are left out, because their
# targets overlap the test windows.

n_test = 60
X_train, y_train = X[: -n_test - 4], y[: -n_test - 4]
X_test, y_test = X[-n_test:], y[-n_test:]

# %%
# The fit
# -------
#
# Four networks, each trained on three quarters of the weeks, are blended with a ridge regression according to how well
# each does on held-out data. The weights show which part carries the forecast.

from skdl import RNNRegressor

forecaster = RNNRegressor(loss="quantile", quantiles=[0.1, 0.5, 0.9], max_epochs=20, hidden_size=32, random_state=0)
forecaster.fit(X_train, y_train)
print({part: round(weight, 2) for part, weight in forecaster.blend_weights_.items()})

bands = forecaster.predict(X_test)
inside = (y_test >= bands[..., 0]) & (y_test <= bands[..., 2])
error = np.abs(y_test - bands[..., 1]).mean()
yesterday = np.abs(y_test - X_test[:, 0, -24:]).mean()
print(f"mean absolute error {error:.1f}; of yesterday's load {yesterday:.1f}; inside the band {inside.mean():.0%}")

# %%
# The picture
# -----------
#
# The error of the median is well below that of repeating the day before, and the band holds about four in five of the
# hours, as it should from 10 % to 90 %.

import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
for ax, row in zip(axes, (4, 20), strict=True):
    past, ahead = np.arange(-48, 0), np.arange(24)
    ax.plot(past, X_test[row, 0, -48:], color="0.5", label="past")
    ax.plot(ahead, y_test[row], color="k", label="what came")
    ax.plot(ahead, bands[row, :, 1], color="C0", label="median")
    ax.fill_between(ahead, bands[row, :, 0], bands[row, :, 2], color="C0", alpha=0.25, label="10 % to 90 %")
    ax.set(xlabel="hours", title=str(index["time"][-n_test:][row])[:13])
axes[0].set_ylabel("load")
axes[0].legend(loc="lower left")
plt.show()
