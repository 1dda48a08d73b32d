"""Recurrent networks: time of a fit beside a loop by hand, and errors with the defaults beside simple baselines.

    python benchmarks/rnn.py                                  # times
    python benchmarks/rnn.py --only accuracy --series folder  # errors on the npz files of a folder
    python benchmarks/rnn.py --only accuracy --series folder --files libras,covid3month --rows 3000 --out figures.md

An npz file holds ``x`` (n, channels, time) and ``y``: labels as integers, or numbers (n,) or (n, horizon). It may hold
``length`` (n,), behind which ``x`` is padding; ``n_train``, the number of leading series that may be trained on; and
``group`` (n,), of series that go on in time by themselves. Without ``n_train`` the first 80 % are trained on (of each
group), or random 80 % where y has one axis.

Everything runs on one thread, in float32. Times are taken in turns, as processor time; a figure is the median over the
repetitions of a ratio of two times of the same repetition.

fit
    One GRU layer of 64 units over 96 steps of 5 channels, 2,000 series, batches of 64, AdamW: skdl without a stem,
    skip path and held-out rows, over a torch loop with ``nn.GRU``, a dense layer and fused AdamW.
unequal
    The same for classification of 600 series of 1 channel whose lengths differ as those of household appliances do,
    most a quarter of the longest, over the loop on the padded array, which gathers the last states.
together
    A search over 24 networks of one GRU layer of 16 units on 500 series of 24 steps and 5 channels, batches of 32, four
    folds, inside ``train_together`` over the same search outside.
accuracy
    Test error (classification), or root mean squared error over the deviation of y, with nothing set but
    ``random_state``, beside ridge regression on flattened standardised series, 200 extremely randomised trees on the
    same, and MiniRocket with ridge regression where aeon is installed (10,000 features; series of unequal lengths are
    padded with zeros).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The first import fixes the number of threads for the others.
import _common as common
import numpy as np
import torch
from _common import Figure, Report, TextTable
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from skdl import RNNClassifier, RNNRegressor, train_together

BATCH_SIZE, EPOCHS, UNITS = 64, 3, 64
PLAIN: dict[str, Any] = {
    "hidden_size": UNITS,
    "hidden_layer_sizes": (),
    "stem": None,
    "bidirectional": False,
    "pooling": "last",
    "series_scaling": None,
    "skip": None,
    "early_stopping": False,
    "n_members": 1,
    "dropout": 0.0,
    "gradient_clip": None,
    "lr_schedule": "constant",
    "batch_size": BATCH_SIZE,
    "max_epochs": EPOCHS,
    "random_state": 0,
    "device": "cpu",
}


class LastState(nn.Module):
    """The network that both sides train."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(n_channels, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, n_outputs)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.recurrent(x)[0]
        return self.output(states[torch.arange(len(x)), lengths - 1])


def fit_by_hand(x: NDArray, lengths: NDArray, y: NDArray, n_outputs: int) -> nn.Module:
    """A training loop as one writes it, on series padded with zeros."""
    mean, scale = np.nanmean(x, axis=(0, 2), keepdims=True), np.nanstd(x, axis=(0, 2), keepdims=True)
    series = torch.as_tensor(np.nan_to_num((x - mean) / scale), dtype=torch.float32).transpose(1, 2).contiguous()
    is_class = y.dtype.kind in "iu"
    target = torch.as_tensor(y) if is_class else torch.as_tensor(y, dtype=torch.float32)
    steps, network = torch.as_tensor(lengths), LastState(x.shape[1], n_outputs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(series)).split(BATCH_SIZE):
            outputs = network(series[rows], steps[rows])
            loss = F.cross_entropy(outputs, target[rows]) if is_class else F.mse_loss(outputs[:, 0], target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


def fit_figures(repetitions: int) -> list[Figure]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 5, 96)).astype(np.float32)
    y = x[:, 0, -5:].mean(axis=1)
    lengths = np.full(len(x), 96)
    return _timed("2,000 x 5 x 96", 1.05, repetitions, RNNRegressor(**PLAIN), x, lengths, y, 1)


def unequal_figures(repetitions: int) -> list[Figure]:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(4.2, 0.55, size=600), 336).astype(int).clip(25)
    lengths[0] = 336
    y = np.arange(600) % 3
    x = np.full((600, 1, 336), np.nan, dtype=np.float32)
    for row, length in enumerate(lengths):
        x[row, 0, :length] = np.sin((1 + y[row]) * np.arange(length) / 8) + rng.normal(0, 0.3, length)
    case = f"600 series, up to 336 steps, {lengths.mean():.0f} on average"
    return _timed(case, 0.7, repetitions, RNNClassifier(**PLAIN), x, lengths, y, 3)


def together_figures(repetitions: int) -> list[Figure]:
    common.clock = time.process_time
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5, 24)).astype(np.float32)
    y = x[:, 0, -5:].mean(axis=1)
    network = RNNRegressor(**PLAIN | {"hidden_size": 16, "batch_size": 32})
    grid = {
        "learning_rate": np.logspace(-3.5, -1.5, 4).tolist(),
        "weight_decay": [0.0, 0.01, 0.1],
        "dropout": [0.0, 0.2],
    }
    search = GridSearchCV(network, grid, cv=4, refit=False, n_jobs=1)

    def together() -> None:
        with train_together():
            search.fit(x, y)

    methods: dict[str, Callable[[], object]] = {"together": together, "outside": lambda: search.fit(x, y)}
    for method in methods.values():
        method()
    ratio = common.ratio(common.interleaved(methods, repetitions), "together", "outside")
    return [Figure("together", "96 fits, 16 units, 24 steps", "together over one by one", ratio)]


def _timed(
    case: str, target: float, repetitions: int, model: Any, x: NDArray, lengths: NDArray, y: NDArray, n_outputs: int
) -> list[Figure]:
    common.clock = time.process_time
    methods: dict[str, Callable[[], object]] = {
        "skdl": lambda: model.fit(x, y),
        "by hand": lambda: fit_by_hand(x, lengths, y, n_outputs),
    }
    for method in methods.values():
        method()
    times = common.interleaved(methods, repetitions)
    return [Figure("fit", case, "skdl over by hand", common.ratio(times, "skdl", "by hand"), target)]


# --- accuracy --------------------------------------------------------------------------------------------------------


@dataclass
class Split:
    """Series to train on and series to test on."""

    x: NDArray
    y: NDArray
    lengths: NDArray
    train: NDArray
    test: NDArray

    @property
    def is_class(self) -> bool:
        return self.y.dtype.kind in "iu"

    def error(self, predicted: NDArray) -> float:
        y = self.y[self.test]
        if self.is_class:
            return float(np.mean(predicted != y))
        return float(np.sqrt(np.mean((predicted - y) ** 2)) / y.std())


def load(path: Path, n_rows: int) -> Split:
    """A file's series, NaN behind their ends, and its split."""
    data = np.load(path)
    x, y = data["x"].astype(np.float32), data["y"]
    lengths = data["length"] if "length" in data.files else np.full(len(x), x.shape[2])
    x[np.broadcast_to(np.arange(x.shape[2]) >= lengths[:, None, None], x.shape)] = np.nan
    rows = np.arange(len(x))
    groups = [rows]
    if "group" in data.files:
        groups = [rows[data["group"] == group] for group in np.unique(data["group"])]
    if "n_train" in data.files:
        parts = [rows[: int(data["n_train"])]]
    elif y.ndim == 1:
        parts = [np.random.RandomState(0).permutation(rows)[: int(0.8 * len(rows))]]
    else:
        parts = [group[: int(0.8 * len(group))] for group in groups]
    train = np.concatenate(parts)
    test = np.setdiff1d(rows, train)
    if len(train) > n_rows:
        train = train[np.sort(np.random.RandomState(0).permutation(len(train))[:n_rows])]
    return Split(x, y, lengths, train, test)


def flattened(split: Split, rows: NDArray) -> NDArray:
    """Rows of all steps of all channels; padding is the mean of the channel."""
    mean = np.nanmean(split.x[split.train], axis=(0, 2), keepdims=True)
    return np.where(np.isnan(split.x[rows]), mean, split.x[rows]).reshape(len(rows), -1)


def ridge(split: Split) -> NDArray:
    alphas = np.logspace(-3, 6, 19)
    model = make_pipeline(StandardScaler(), (RidgeClassifierCV if split.is_class else RidgeCV)(alphas))
    return model.fit(flattened(split, split.train), split.y[split.train]).predict(flattened(split, split.test))


def trees(split: Split) -> NDArray:
    model = (ExtraTreesClassifier if split.is_class else ExtraTreesRegressor)(200, random_state=0)
    return model.fit(flattened(split, split.train), split.y[split.train]).predict(flattened(split, split.test))


def minirocket(split: Split) -> NDArray:
    from aeon.transformations.collection.convolution_based import MiniRocket

    def series(rows: NDArray) -> Any:
        if split.lengths.min() == split.x.shape[2]:
            return split.x[rows]
        # Shorter ones are padded with zeros, which aeon's MiniRocket wants.
        return np.nan_to_num(split.x[rows])

    transform = MiniRocket(n_jobs=1, random_state=0).fit(series(split.train))
    alphas = np.logspace(-3, 3, 10)
    model = make_pipeline(StandardScaler(with_mean=False), (RidgeClassifierCV if split.is_class else RidgeCV)(alphas))
    model.fit(transform.transform(series(split.train)), split.y[split.train])
    return model.predict(transform.transform(series(split.test)))


def baselines() -> dict[str, Callable[[Split], NDArray]]:
    found: dict[str, Callable[[Split], NDArray]] = {"ridge": ridge, "trees": trees}
    try:
        import aeon  # noqa: F401
    except ImportError:
        print("aeon is not installed, so MiniRocket is left out.")
        return found
    return found | {"MiniRocket": minirocket}


def accuracy_table(paths: list[Path], n_rows: int) -> tuple[TextTable, list[Figure]]:
    methods, rows, ratios, excess = baselines(), [], [], []
    for path in paths:
        split = load(path, n_rows)
        started = time.process_time()
        model = (RNNClassifier if split.is_class else RNNRegressor)(random_state=0, device="cpu")
        error = split.error(model.fit(split.x[split.train], split.y[split.train]).predict(split.x[split.test]))
        seconds = time.process_time() - started
        others = {name: split.error(method(split)) for name, method in methods.items()}
        if split.is_class:
            excess.append(error - others.get("MiniRocket", min(others.values())))
        else:
            ratios.append(error / min(others.values()))
        weights = model.blend_weights_
        cells = [f"{others[name]:.4f}" for name in methods]
        rows.append([path.stem, str(len(split.train)), *cells, f"{error:.4f}", _share(weights), f"{seconds:.0f}"])
        print("  ".join(rows[-1]), flush=True)
    header = ["set", "series", *methods, "skdl", "network : skip", "CPU seconds"]
    figures = []
    if ratios:
        mean = float(np.exp(np.mean(np.log(ratios))))
        figures.append(Figure("accuracy", "regression", "geometric mean of RMSE over the best", mean, 1.0))
        figures.append(Figure("accuracy", "regression", "largest RMSE over the best", max(ratios), 1.25))
    if excess:
        figures.append(Figure("accuracy", "classification", "mean error minus MiniRocket's", np.mean(excess), 0.02))
    return TextTable("Errors with the defaults", header, rows), figures


def _share(weights: dict[str, float]) -> str:
    return " : ".join(f"{weights.get(name, 0):.2f}" for name in ("network", "skip"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="fit,unequal,together", help="parts to run, separated by commas")
    parser.add_argument("--series", type=Path, help="folder of npz files")
    parser.add_argument("--files", default="", help="names of files of the folder, all by default")
    parser.add_argument("--rows", type=int, default=10**9, help="series to train on at most")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the figures: .csv, or Markdown")
    arguments = parser.parse_args()
    print(common.machine(), "\n")
    report = Report()
    parts = arguments.only.split(",")
    if "fit" in parts:
        report.add("fit", fit_figures(arguments.repetitions))
    if "unequal" in parts:
        report.add("unequal", unequal_figures(arguments.repetitions))
    if "together" in parts:
        report.add("together", together_figures(arguments.repetitions))
    if "accuracy" in parts:
        names = [name for name in arguments.files.split(",") if name]
        found = sorted(arguments.series.glob("*.npz"))
        table, figures = accuracy_table([p for p in found if not names or p.stem in names], arguments.rows)
        report.table(table)
        report.add("accuracy", figures)
    print(report.summary())
    if arguments.out:
        report.write(arguments.out)


if __name__ == "__main__":
    main()
