"""Time and memory of a fit and of predictions, and the time of the import, beside other libraries and beside targets.

    python benchmarks/fit_speed.py                        # all, about 6 minutes
    python benchmarks/fit_speed.py --quick                # 2 repetitions in place of 5
    python benchmarks/fit_speed.py --only fit,import      # of fit, loss, predict, import, memory
    python benchmarks/fit_speed.py --out figures.csv      # figures; with any other ending the tables in Markdown
    python benchmarks/fit_speed.py --cpu-time             # fit and predict by processor time, for a busy machine

It needs ``pip install skdl[benchmark]`` and leaves out skorch where it is missing.

Everything runs on one thread, in float32, and in turns with its peers. A figure is the median over the repetitions of
a ratio of two times of the same repetition, so that a busy machine meets both sides of it. "measured" is that ratio,
"at most" the target.

fit
    Same rows, architecture, batch size, epochs and Adam for all; no early stopping, no penalties, no dropout.
    Each method gets the raw float32 array. skdl checks and scales it, the loop by hand standardises X (and y).

    sklearn    ``MLPClassifier`` / ``MLPRegressor``, on X as it is
    by hand    a torch loop: autograd, fused Adam, minibatches by ``index_select``
    skorch     ``NeuralNetClassifier`` / ``NeuralNetRegressor``, fused Adam, without callbacks and validation
    products   the matrix products of the forward and the backward pass alone, which no dense network can do without
loss
    Mean training loss of the fitted skdl network over that of scikit-learn's, both computed from their predictions by
    one formula, on standardised data which skdl is told not to scale again; the mean of several seeds.
predict
    ``predict_proba`` from the raw array. "bare torch" is the network and the softmax alone on a tensor that is
    already scaled; "torch from raw X" scales a numpy array first, as its user has to.
    From a pandas frame: beside the same estimator on the array of the same numbers, and beside
    ``HistGradientBoostingClassifier``, the tabular estimator of scikit-learn that takes frames in raw, on the frame.
import
    Each import in a fresh interpreter. ``import skdl`` alone imports little: each estimator comes when it is asked for.
memory
    Peak memory of ``fit`` above that of the process before it, in a fresh process, for a float64 array. The target is
    2.5 times the encoded float32 table, plus the network.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# The first import fixes the number of threads for the others.
import _common as common
import numpy as np
import pandas as pd
import torch
from _common import Figure, Report, TextTable, Times
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import skdl

try:
    import skorch
except ModuleNotFoundError:
    skorch = None

LEARNING_RATE = 1e-3
Data = tuple[NDArray[np.float32], NDArray]


@dataclass(frozen=True, eq=False)
class Shape:
    """Rows, columns, classes (0 for regression), hidden units and batch size of a fit; epochs to time and to compare.

    ``targets`` are the largest ratios of skdl's fit time to that of each peer.
    """

    n: int
    d: int
    n_classes: int
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    loss_epochs: int
    loss_seeds: int
    targets: dict[str, float]

    @property
    def name(self) -> str:
        task = f"{self.n_classes} classes" if self.n_classes else "regression"
        hidden = "x".join(map(str, self.hidden))
        return f"{self.n} x {self.d}, {task}, {hidden}, batch {self.batch_size}"

    @property
    def n_outputs(self) -> int:
        return self.n_classes if self.n_classes > 2 else 1

    @property
    def n_steps(self) -> int:
        return self.epochs * -(-self.n // self.batch_size)

    def data(self) -> Data:
        """A linear signal with a bend and noise, so that there is something to learn and something left over."""
        rng = np.random.RandomState(0)
        X = rng.standard_normal((self.n, self.d)).astype(np.float32)
        linear, bent = rng.standard_normal((2, self.d, self.n_outputs))
        signal = X @ linear + np.abs(X) @ bent
        signal += rng.standard_normal(signal.shape) * signal.std() / 4
        if self.n_classes == 0:
            return X, signal[:, 0].astype(np.float32)
        centred = signal - signal.mean(axis=0)
        return X, centred.argmax(axis=1) if self.n_classes > 2 else (centred[:, 0] > 0).astype(int)


SMALL = {"sklearn": 0.5, "by hand": 0.5, "skorch": 0.15}
SHAPES = [
    Shape(1000, 20, 3, (100,), 32, 50, 50, 5, SMALL),
    Shape(1797, 64, 10, (100,), 200, 100, 50, 5, SMALL),
    Shape(20_000, 20, 2, (100,), 200, 10, 20, 3, SMALL),
    Shape(20_000, 50, 2, (256, 256), 256, 5, 5, 3, {"sklearn": 0.7, "by hand": 0.9, "skorch": 0.45, "products": 1.4}),
    Shape(100_000, 100, 0, (256, 256, 256), 1024, 3, 2, 1, {"by hand": 1.0, "products": 1.4}),
]

# --- the methods -----------------------------------------------------------------------------------------------------


def skdl_network(shape: Shape, **changes: Any) -> Any:
    """The plain network: what the peers do and nothing more."""
    estimator = skdl.MLPClassifier if shape.n_classes else skdl.MLPRegressor
    parameters = {
        "hidden_layer_sizes": shape.hidden,
        "numeric_embedding": None,
        "dropout": 0,
        "optimizer": "adam",
        "learning_rate": LEARNING_RATE,
        "lr_schedule": "constant",
        "weight_decay": 0,
        "batch_size": shape.batch_size,
        "max_epochs": shape.epochs,
        "early_stopping": False,
        "n_members": 1,
        "random_state": 0,
        "device": "cpu",
    }
    return estimator(**parameters | changes)


def sklearn_network(shape: Shape, **changes: Any) -> Any:
    estimator = MLPClassifier if shape.n_classes else MLPRegressor
    parameters = {
        "hidden_layer_sizes": shape.hidden,
        "solver": "adam",
        "alpha": 0,
        "learning_rate_init": LEARNING_RATE,
        "batch_size": shape.batch_size,
        "max_iter": shape.epochs,
        "n_iter_no_change": shape.epochs,
        "tol": 0,
        "shuffle": True,
        "early_stopping": False,
        "random_state": 0,
    }
    return estimator(**parameters | changes)


def torch_layers(shape: Shape, n_outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((shape.d, *shape.hidden)):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(shape.hidden[-1], n_outputs))


def torch_target(shape: Shape, y: NDArray) -> tuple[Tensor, nn.Module]:
    """The encoded target and its loss."""
    if shape.n_classes > 2:
        return torch.from_numpy(y), nn.CrossEntropyLoss()
    if shape.n_classes == 2:
        return torch.from_numpy(y).float().unsqueeze(1), nn.BCEWithLogitsLoss()
    return torch.from_numpy((y - y.mean()) / y.std()).unsqueeze(1), nn.MSELoss()


def fit_by_hand(shape: Shape, X: NDArray[np.float32], y: NDArray) -> nn.Module:
    """The training loop of someone who knows torch well."""
    inputs = torch.from_numpy(StandardScaler().fit_transform(X))
    target, criterion = torch_target(shape, y)
    network = torch_layers(shape, shape.n_outputs)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    for _ in range(shape.epochs):
        epoch_loss = torch.zeros(())
        for rows in torch.randperm(shape.n).split(shape.batch_size):
            optimizer.zero_grad()
            loss = criterion(network(inputs.index_select(0, rows)), target.index_select(0, rows))
            loss.backward()
            optimizer.step()
            epoch_loss += loss.detach() * len(rows)
        epoch_loss.item()
    return network


def fit_skorch(shape: Shape, X: NDArray[np.float32], y: NDArray) -> Any:
    is_classifier = shape.n_classes > 0
    estimator = skorch.NeuralNetClassifier if is_classifier else skorch.NeuralNetRegressor
    network = estimator(
        torch_layers(shape, max(shape.n_classes, 1)),
        criterion=nn.CrossEntropyLoss if is_classifier else nn.MSELoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=LEARNING_RATE,
        max_epochs=shape.epochs,
        batch_size=shape.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )
    target = y if is_classifier else ((y - y.mean()) / y.std())[:, None]
    return network.fit(StandardScaler().fit_transform(X), target)


def matrix_products(shape: Shape) -> Callable[[], None]:
    """The matrix products of the fit: one forward and two backward a layer, one backward for the first layer."""
    widths = [shape.d, *shape.hidden, shape.n_outputs]
    weights = [torch.randn(pair) for pair in pairwise(widths)]
    gradients = [torch.empty_like(weight) for weight in weights]
    rest = shape.n % shape.batch_size
    batches = {b: [torch.randn(b, width) for width in widths] for b in (shape.batch_size, rest) if b}
    sizes = [shape.batch_size] * (shape.n // shape.batch_size) + [rest] * (rest > 0)

    def step(values: list[Tensor]) -> None:
        for i, weight in enumerate(weights):
            torch.mm(values[i], weight, out=values[i + 1])
        for i in reversed(range(len(weights))):
            torch.mm(values[i].t(), values[i + 1], out=gradients[i])
            if i > 0:
                torch.mm(values[i + 1], weights[i].t(), out=values[i])

    def run() -> None:
        # Values that are products of products would soon overflow, and the processor is slower on such numbers.
        for weight in weights:
            weight.div_(torch.linalg.matrix_norm(weight, 2))
        for _ in range(shape.epochs):
            for size in sizes:
                step(batches[size])

    return run


# --- fit -------------------------------------------------------------------------------------------------------------


def fit_methods(shape: Shape) -> dict[str, Callable[[], object]]:
    X, y = shape.data()
    methods: dict[str, Callable[[], object]] = {
        "skdl": lambda: skdl_network(shape).fit(X, y),
        "sklearn": lambda: sklearn_network(shape).fit(X, y),
        "by hand": lambda: fit_by_hand(shape, X, y),
        "products": matrix_products(shape),
    }
    if skorch is not None:
        methods["skorch"] = lambda: fit_skorch(shape, X, y)
    return methods


def warm_up() -> None:
    """What a first call of each library does once."""
    for n_classes in (0, 2, 3):
        for method in fit_methods(Shape(200, 5, n_classes, (10,), 50, 2, 1, 1, {})).values():
            method()


def fit_section(report: Report, repetitions: int) -> None:
    warm_up()
    times = {}
    for shape in SHAPES:
        # The largest shape is there for the loop by hand; the others show where they stand.
        limited = {"sklearn": 1, "skorch": 1} if shape.n >= 100_000 else {}
        times[shape] = common.interleaved(fit_methods(shape), repetitions, limited=limited)
    report.table(fit_times_table(times))
    report.add("fit: time of skdl over that of ...", [f for shape in SHAPES for f in fit_figures(shape, times[shape])])


def fit_times_table(times: dict[Shape, Times]) -> TextTable:
    methods = list(next(iter(times.values())))
    rows = []
    for shape, taken in times.items():
        medians = [statistics.median(taken[name]) for name in methods]
        rows.append([shape.name, str(shape.n_steps), *(f"{m / shape.n_steps * 1e6:.0f}" for m in medians)])
    return TextTable(
        "fit: microseconds a training step, all of fit divided by its steps", ["shape", "steps", *methods], rows
    )


def fit_figures(shape: Shape, times: Times) -> Iterator[Figure]:
    for peer in times:
        if peer != "skdl":
            yield Figure("fit", shape.name, peer, common.ratio(times, "skdl", peer), shape.targets.get(peer))


# --- loss ------------------------------------------------------------------------------------------------------------


def training_loss(network: Any, X: NDArray, y: NDArray, shape: Shape) -> float:
    if shape.n_classes:
        return float(log_loss(y, network.predict_proba(X)))
    return float(np.mean((y - network.predict(X)) ** 2) / 2)


def loss_section(report: Report, repetitions: int) -> None:
    rows, figures = [], []
    for shape in SHAPES:
        X, y = shape.data()
        X = StandardScaler().fit_transform(X)
        y = y if shape.n_classes else (y - y.mean()) / y.std()
        losses: dict[str, list[float]] = {"skdl": [], "sklearn": []}
        for seed in range(min(shape.loss_seeds, repetitions)):
            ours = skdl_network(shape, max_epochs=shape.loss_epochs, numeric_scaling=None, random_state=seed)
            peer = sklearn_network(shape, max_iter=shape.loss_epochs, n_iter_no_change=10**6, random_state=seed)
            for name, network in (("skdl", ours), ("sklearn", peer)):
                losses[name].append(training_loss(network.fit(X, y), X, y, shape))
        means = {name: statistics.mean(values) for name, values in losses.items()}
        rows.append([shape.name, str(shape.loss_epochs), f"{means['skdl']:.5f}", f"{means['sklearn']:.5f}"])
        figures.append(Figure("loss", shape.name, "sklearn", means["skdl"] / means["sklearn"], 1.05))
    report.table(
        TextTable("loss: on the training rows after the last epoch", ["shape", "epochs", "skdl", "sklearn"], rows)
    )
    report.add("loss: that of skdl over that of ...", figures)


# --- predict ---------------------------------------------------------------------------------------------------------


def predict_methods(shape: Shape, n_rows: int) -> dict[str, Callable[[], object]]:
    X, y = shape.data()
    ours, peer = skdl_network(shape, max_epochs=2).fit(X, y), sklearn_network(shape, max_iter=2).fit(X, y)
    network = torch_layers(shape, shape.n_classes).eval()
    rows = np.ascontiguousarray(np.resize(X, (n_rows, shape.d)))
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scaled = torch.from_numpy((rows - mean) / scale)

    @torch.inference_mode()
    def bare() -> NDArray:
        return torch.softmax(network(scaled), 1).numpy()

    @torch.inference_mode()
    def from_raw() -> NDArray:
        return torch.softmax(network(torch.from_numpy((rows - mean) / scale)), 1).numpy()

    return {
        "skdl": lambda: ours.predict_proba(rows),
        "sklearn": lambda: peer.predict_proba(rows),
        "bare torch": bare,
        "torch from raw X": from_raw,
    }


def predict_section(report: Report, repetitions: int) -> None:
    rows, figures = [], []
    for shape in (SHAPES[0], SHAPES[3]):
        for n_rows, calls in ((1, 300), (10_000, 20)):
            methods = predict_methods(shape, n_rows)
            # The first repetition is there to warm the caches.
            times = {k: v[1:] for k, v in common.interleaved(methods, 2 * repetitions + 1, calls).items()}
            case = f"{n_rows} row{'s' * (n_rows > 1)} of {shape.d} columns, {'x'.join(map(str, shape.hidden))}"
            rows.append([case, *(common.readable(statistics.median(taken)) for taken in times.values())])
            targets = {"sklearn": 0.8} if n_rows == 1 else {"bare torch": 1.05}
            for name in list(times)[1:]:
                figures.append(Figure("predict", case, name, common.ratio(times, "skdl", name), targets.get(name)))
    report.table(TextTable("predict_proba: median time of a call", ["case", *times], rows))
    report.add("predict_proba: time of skdl over that of ...", figures)
    frame_section(report, repetitions)


FRAME_SHAPES = [Shape(1000, d, 2, (100,), 200, 2, 1, 1, {}) for d in (20, 500)]


def frame_methods(shape: Shape) -> dict[str, Callable[[], object]]:
    X, y = shape.data()
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(shape.d)])
    on_frame, on_array = skdl_network(shape).fit(frame, y), skdl_network(shape).fit(X, y)
    trees = HistGradientBoostingClassifier(random_state=0).fit(frame, y)
    frame_row, array_row = frame[:1], X[:1]
    return {
        "skdl": lambda: on_frame.predict_proba(frame_row),
        "skdl on the array": lambda: on_array.predict_proba(array_row),
        "sklearn's boosted trees": lambda: trees.predict_proba(frame_row),
    }


def frame_section(report: Report, repetitions: int) -> None:
    rows, figures = [], []
    for shape in FRAME_SHAPES:
        # The first repetition is there to warm the caches.
        times = {k: v[1:] for k, v in common.interleaved(frame_methods(shape), 2 * repetitions + 1, 100).items()}
        case = f"1 row of a frame of {shape.d} columns"
        rows.append([case, *(common.readable(statistics.median(taken)) for taken in times.values())])
        figures += [Figure("predict", case, name, common.ratio(times, "skdl", name)) for name in list(times)[1:]]
    report.table(TextTable("predict_proba from a frame: median time of a call", ["case", *times], rows))
    report.add("predict_proba from a frame: time of skdl over that of ...", figures)


# --- import ----------------------------------------------------------------------------------------------------------


def import_seconds(statement: str) -> float:
    code = f"import time; started = time.perf_counter(); {statement}; print(time.perf_counter() - started)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def import_section(report: Report, repetitions: int) -> None:
    ours, bare = ["import skdl", "from skdl import MLPClassifier", "from skdl import *"], "import torch, sklearn.base"
    import_seconds(ours[-1])
    times: Times = {statement: [] for statement in (*ours, bare)}
    for _ in range(2 * repetitions):
        for statement, taken in times.items():
            taken.append(import_seconds(statement))
    rows = [[statement, common.readable(statistics.median(taken))] for statement, taken in times.items()]
    report.table(TextTable("import: median time", ["statement", "time"], rows))
    figures = [Figure("import", statement, bare, common.ratio(times, statement, bare), 1.15) for statement in ours]
    report.add("import: time of skdl over that of ...", figures)


# --- memory ----------------------------------------------------------------------------------------------------------

MB = 1e6
MEMORY_CASES: dict[str, tuple[Shape, dict[str, Any]]] = {
    "100000 x 100, plain network": (SHAPES[4], {}),
    "20000 x 500, plain network": (Shape(20_000, 500, 2, (100,), 256, 1, 1, 1, {}), {}),
    "20000 x 50, early stopping": (SHAPES[3], {"early_stopping": True}),
    "20000 x 50, piecewise-linear embedding, 8 members": (
        SHAPES[3],
        {"numeric_embedding": "piecewise_linear", "early_stopping": True, "n_members": 8},
    ),
}


def peak_of_fit(case: str) -> tuple[int, int, int]:
    """Bytes of a fit at its peak, of the encoded table, and of the network; to be run in a process of its own."""
    shape, changes = MEMORY_CASES[case]
    X, y = shape.data()
    X = X.astype(np.float64)
    network = skdl_network(shape, **{"max_epochs": 2} | changes)
    network.fit(X[:600], y[:600])
    before = common.status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    network.fit(X, y)
    peak = common.status_bytes("VmHWM") - before
    n_numbers = sum(parameter.numel() for parameter in network.network_.parameters())
    return peak, 4 * len(X) * network._encoder.n_outputs, 4 * n_numbers


def memory_section(report: Report, repetitions: int) -> None:
    if not Path("/proc/self/clear_refs").exists():
        print("memory: measured on Linux only\n")
        return
    rows, figures = [], []
    for case in MEMORY_CASES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peak, table, network = pool.submit(peak_of_fit, case).result()
        rows.append([case, *(f"{size / MB:.1f}" for size in (peak, table, network))])
        figures.append(Figure("memory", case, "(peak - network) / encoded table", (peak - network) / table, 2.5))
    report.table(TextTable("memory: MB", ["case", "peak of fit", "encoded table", "network"], rows))
    report.add("memory: peak of fit", figures)


SECTIONS = {
    "fit": fit_section,
    "loss": loss_section,
    "predict": predict_section,
    "import": import_section,
    "memory": memory_section,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 repetitions in place of 5")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between them")
    parser.add_argument("--out", type=Path, help="file for the figures (.csv) or the tables (Markdown)")
    parser.add_argument("--cpu-time", action="store_true", help="time fit and predict by the time on the processor")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"--only: there is no section {', '.join(sorted(unknown))}")
    if arguments.cpu_time:
        common.clock = time.process_time
    warnings.simplefilter("ignore", ConvergenceWarning)
    report = Report()
    print(common.machine() + "\n")
    for name in wanted:
        SECTIONS[name](report, 2 if arguments.quick else 5)
    print(report.summary())
    if arguments.out:
        report.write(arguments.out)


if __name__ == "__main__":
    main()
