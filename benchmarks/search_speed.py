"""Time and memory of whole searches: trained together, one fit after another, and by other libraries.

    python benchmarks/search_speed.py                     # all, about 8 minutes
    python benchmarks/search_speed.py --quick             # 1 repetition in place of 3
    python benchmarks/search_speed.py --only small,large  # of small, large, models, width, many, gpu
    python benchmarks/search_speed.py --out figures.csv   # figures; with any other ending the tables in Markdown

It needs ``pip install skdl[benchmark]`` and leaves out skorch where it is missing.

Everyone may use two cores, by two processes or two threads that compute, each of them with one thread of its own, and
works in float32 on the same rows. The methods take turns, and a figure is the median over the repetitions of a ratio of
two times of the same repetition. "measured" is that ratio, "at most" the target. Processes that a search with
``n_jobs=2`` needs are started, and have imported all they need, before anything is timed.

small
    breast_cancer, 100 hidden units, batch 32, 20 epochs: 8 learning rates x 3 penalties x 5 folds, and the refit.

    together          skdl under ``train_together``
    alone             skdl, one fit after another
    alone, n_jobs=2   skdl, each fit in one of two processes
    sklearn           ``MLPClassifier``, ``n_jobs=2``
    skorch            ``NeuralNetClassifier`` with fused Adam, without callbacks and validation, ``n_jobs=2``

    The search with the context and the one without have to come to the same scores, choice and network.
large
    20,000 rows x 50 columns, 256 x 256 units, batch 256, 5 epochs, 24 fits.
models
    The small search with fewer and with more candidates: what one training step of one model takes of one core, by the
    seconds of ``report_``, and the time of the whole search over its models.
width
    The same, for stacks of a given width, with the bound of the cache lifted. "rule" marks the width that a stack gets
    when nobody says otherwise; the figures hold that width against the best one.
many
    ``RandomizedSearchCV`` with 400 candidates x 5 folds of a 64-unit network on 500 rows, against 40 candidates:
    seconds a model, and the peak of memory above that before the search, each in a fresh process. The smaller search
    has 200 models in memory at once and the larger one at most ``max_models``, 256.
gpu
    The small search on a GPU, together and one fit after another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

# The first import fixes the number of threads for the others.
import _common as common
import numpy as np
import torch
from _common import Figure, Report, TextTable, Times
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import skdl
from skdl.engine import stacking
from skdl.engine.dispatch import Route, routed_through
from skdl.engine.job import Job, Monitor, Result
from skdl.engine.train import train

try:
    import skorch
except ModuleNotFoundError:
    skorch = None

N_CORES = 2
# joblib's own name for it; both skdl and scikit-learn heed it.
os.environ["LOKY_MAX_CPU_COUNT"] = str(N_CORES)


@dataclass(frozen=True, eq=False)
class Workload:
    """The rows, network and grid of a search."""

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    learning_rates: NDArray[np.float64]
    penalties: tuple[float, ...] = (0.0,)
    n_folds: int = 5
    refit: bool = False

    @property
    def n_models(self) -> int:
        return len(self.learning_rates) * len(self.penalties) * self.n_folds

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch on the rows that a fold leaves."""
        n_rows = len(self.y) - len(self.y) // self.n_folds
        return -(-n_rows // self.batch_size)


def small_workload(n_rates: int = 8, penalties: tuple[float, ...] = (0.0, 1e-4, 1e-2), **changes: Any) -> Workload:
    X, y = load_breast_cancer(return_X_y=True)
    rates = np.logspace(-4, -1, n_rates)
    return Workload("breast_cancer, 100", X.astype(np.float32), y, (100,), 32, 20, rates, penalties, **changes)


def large_workload() -> Workload:
    X, y = make_classification(20_000, 50, n_informative=20, flip_y=0.1, random_state=0)
    rates = np.logspace(-4, -2, 4)
    return Workload("20,000 x 50, 256x256", X.astype(np.float32), y, (256, 256), 256, 5, rates, (0.0, 1e-4), n_folds=3)


def many_workload() -> Workload:
    X, y = make_classification(500, 20, n_informative=10, flip_y=0.1, random_state=0)
    return Workload("500 x 20, 64", X.astype(np.float32), y, (64,), 32, 20, np.logspace(-4, -1, 10_000))


def pipeline(network: Any) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("network", network)])


def grid_search(network: Any, work: Workload, rate: str, penalty: str, n_jobs: int | None) -> GridSearchCV:
    grid = {f"network__{rate}": work.learning_rates, f"network__{penalty}": work.penalties}
    return GridSearchCV(pipeline(network), grid, cv=work.n_folds, refit=work.refit, n_jobs=n_jobs)


def skdl_network(work: Workload, **changes: Any) -> skdl.MLPClassifier:
    parameters = {
        "hidden_layer_sizes": work.hidden,
        "numeric_scaling": None,
        "numeric_embedding": None,
        "dropout": 0,
        "optimizer": "adam",
        "lr_schedule": "constant",
        "weight_decay": 0,
        "batch_size": work.batch_size,
        "max_epochs": work.epochs,
        "early_stopping": False,
        "n_members": 1,
        "random_state": 0,
        "device": "cpu",
    }
    return skdl.MLPClassifier(**parameters | changes)


def skdl_search(work: Workload, n_jobs: int | None = None, **changes: Any) -> GridSearchCV:
    search = grid_search(skdl_network(work, **changes), work, "learning_rate", "l2", n_jobs)
    return search.fit(work.X, work.y)


def together_search(work: Workload, **changes: Any) -> GridSearchCV:
    with skdl.train_together():
        return skdl_search(work, **changes)


def sklearn_search(work: Workload) -> GridSearchCV:
    network = MLPClassifier(
        hidden_layer_sizes=work.hidden,
        solver="adam",
        batch_size=work.batch_size,
        max_iter=work.epochs,
        n_iter_no_change=work.epochs,
        tol=0,
        random_state=0,
    )
    return grid_search(network, work, "learning_rate_init", "alpha", N_CORES).fit(work.X, work.y)


class Layers(nn.Sequential):
    """The network as skorch wants it: made anew for every fit."""

    def __init__(self, n_inputs: int, hidden: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in zip((n_inputs, *hidden[:-1]), hidden, strict=True):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden[-1], 2))


def skorch_search(work: Workload) -> GridSearchCV:
    network = skorch.NeuralNetClassifier(
        Layers,
        module__n_inputs=work.X.shape[1],
        module__hidden=work.hidden,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        max_epochs=work.epochs,
        batch_size=work.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )
    return grid_search(network, work, "lr", "optimizer__weight_decay", N_CORES).fit(work.X, work.y)


def warm_up() -> None:
    """Start the processes of ``n_jobs=2`` and let every library do what its first call does once."""
    tiny = small_workload(2, (0.0,), refit=True)
    tiny = replace(tiny, epochs=1)
    for search in (together_search, skdl_search, sklearn_search):
        search(tiny)
    skdl_search(tiny, N_CORES)
    if skorch is not None:
        skorch_search(tiny)


def times_table(title: str, work: Workload, times: Times) -> TextTable:
    rows = []
    for name, taken in times.items():
        median = statistics.median(taken)
        rows.append([name, f"{median:.2f}", f"{median / work.n_models * 1e3:.1f}", f"{work.n_models / median:.0f}"])
    return TextTable(title, ["method", "seconds", "ms a fit", "fits a second"], rows)


def ratio_figures(section: str, times: Times, targets: dict[str, float]) -> Iterator[Figure]:
    for peer in times:
        if peer != "together":
            yield Figure(section, "together over ...", peer, common.ratio(times, "together", peer), targets.get(peer))


# --- small -----------------------------------------------------------------------------------------------------------


def small_section(report: Report, quick: bool) -> None:
    work = small_workload(refit=True)
    methods: dict[str, Callable[[], object]] = {
        "together": lambda: together_search(work),
        "alone": lambda: skdl_search(work),
        "alone, n_jobs=2": lambda: skdl_search(work, N_CORES),
        "sklearn": lambda: sklearn_search(work),
    }
    if skorch is not None:
        methods["skorch"] = lambda: skorch_search(work)
    times = common.interleaved(methods, 1 if quick else 3)
    report.table(times_table(f"small: {work.n_models} fits and the refit", work, times))
    targets = {"alone": 0.35, "alone, n_jobs=2": 0.6, "sklearn": 0.20, "skorch": 0.12}
    report.add("small: time of the search together over that of ...", list(ratio_figures("small", times, targets)))
    report.add("small: the same search with the context and without", list(equality_figures(work)))


def equality_figures(work: Workload) -> Iterator[Figure]:
    """How far apart the two searches are: scores in samples of a fold, weights relative to the largest of a layer."""
    together, alone = together_search(work), skdl_search(work)
    scores = [[search.cv_results_[f"split{i}_test_score"] for i in range(work.n_folds)] for search in (together, alone)]
    samples = np.abs(np.subtract(*scores)) * (len(work.y) / work.n_folds)
    distance = max(
        np.abs(ours - theirs).max() / np.abs(theirs).max()
        for ours, theirs in zip(weights_of(together), weights_of(alone), strict=True)
    )
    case = "together against alone"
    yield Figure("small", case, "scores that differ", float(np.sum(samples > 0.01)))
    yield Figure("small", case, "largest difference of a score, samples", float(samples.max()), 1.1)
    yield Figure("small", case, "best_params_ that differ", float(together.best_params_ != alone.best_params_), 0)
    yield Figure("small", case, "refitted weights, difference in 1e-4", float(distance) / 1e-4, 1)


def weights_of(search: GridSearchCV) -> list[NDArray[np.float32]]:
    return search.best_estimator_[-1].coefs_


# --- large -----------------------------------------------------------------------------------------------------------


def large_section(report: Report, quick: bool) -> None:
    work = large_workload()
    methods: dict[str, Callable[[], object]] = {
        "together": lambda: together_search(work),
        "alone, n_jobs=2": lambda: skdl_search(work, N_CORES),
        "sklearn": lambda: sklearn_search(work),
    }
    times = common.interleaved(methods, 1 if quick else 3)
    report.table(times_table(f"large: {work.n_models} fits", work, times))
    targets = {"alone, n_jobs=2": 1.10, "sklearn": 0.5}
    report.add("large: time of the search together over that of ...", list(ratio_figures("large", times, targets)))


# --- models ----------------------------------------------------------------------------------------------------------

#: Candidates of each size of search, with five folds each: 10, 40, 120 and 400 models.
CANDIDATES = (2, 8, 24, 80)


def models_section(report: Report, quick: bool) -> None:
    works = [small_workload(n, (0.0,)) for n in CANDIDATES]
    engine: Times = {str(work.n_models): [] for work in works}
    whole: Times = {str(work.n_models): [] for work in works}
    for _ in range(1 if quick else 3):
        for work in works:
            started = time.perf_counter()
            with skdl.train_together() as run:
                skdl_search(work)
            whole[str(work.n_models)].append((time.perf_counter() - started) / work.n_models)
            n_steps = work.steps_per_epoch * sum(stack.n_epochs for stack in run.report_)
            engine[str(work.n_models)].append(sum(stack.seconds for stack in run.report_) / n_steps)
    rows = [
        [name, f"{statistics.median(engine[name]) * 1e6:.1f}", f"{statistics.median(whole[name]) * 1e3:.1f}"]
        for name in engine
    ]
    report.table(
        TextTable("models: cost by the size of the search", ["models", "us a model-step", "ms a model, in all"], rows)
    )
    # A tenth for the noise of the clock; the engine is to get no dearer.
    figures = [
        Figure("models", "us a model-step", f"{n} models over 40", common.ratio(engine, n, "40"), 1.1)
        for n in ("120", "400")
    ]
    report.add("models: the cost of a model does not rise with their number", figures)


# --- width -----------------------------------------------------------------------------------------------------------


def jobs_of(work: Workload, epochs: int) -> list[Job]:
    """The job of each fold, as a search hands them to the engine."""
    jobs: list[Job] = []

    def listen(handed: list[Job]) -> list[Result]:
        jobs.extend(handed)
        return train(handed)

    with routed_through(Route(listen)):
        cross_val_score(pipeline(skdl_network(work, max_epochs=1)), work.X, work.y, cv=work.n_folds)
    return [replace(job, settings=replace(job.settings, max_epochs=epochs)) for job in jobs]


def like(jobs: list[Job], n: int) -> list[Job]:
    """So many jobs in the manner of these, each a fit of its own with its own seed."""
    return [replace(jobs[i % len(jobs)], seed=i, monitor=Monitor()) for i in range(n)]


def width_section(report: Report, quick: bool) -> None:
    figures = []
    for work, epochs, widths in (
        (small_workload(), 4, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        (many_workload(), 4, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        (large_workload(), 1, (1, 2, 4, 8, 16)),
    ):
        jobs = jobs_of(work, epochs)
        rule = stacking.widest_stack(jobs[0].plan, len(jobs[0].train))
        costs = width_costs(jobs, sorted({*widths, rule}), 1 if quick else 3)
        report.table(width_table(work, costs, rule))
        best = min(costs, key=lambda width: statistics.median(costs[width]))
        what = f"{rule} (rule) over {best} (best)"
        figures.append(Figure("width", work.name, what, common.ratio(costs, rule, best)))
    report.add("width: cost of a model-step at the width of the rule over that at the best width", figures)


def width_costs(jobs: list[Job], widths: list[int], repetitions: int) -> dict[int, list[float]]:
    """Seconds that a training step of one model takes of one core, by the width of its stack."""
    costs: dict[int, list[float]] = {width: [] for width in widths}
    with patch.multiple(stacking, CACHE_BYTES=sys.maxsize, LARGE_STEP=sys.maxsize):
        for _ in range(repetitions):
            for width in widths:
                # A stack or more for every core.
                copies = like(jobs, max(width, 8) * N_CORES)
                n_steps = sum(-(-len(job.train) // job.plan.batch_size) * job.settings.max_epochs for job in copies)
                taken = common.seconds(partial(train, copies, max_models=width, n_workers=N_CORES))
                costs[width].append(taken * N_CORES / n_steps)
    return costs


def width_table(work: Workload, costs: dict[int, list[float]], rule: int) -> TextTable:
    rows = [
        [str(width), f"{statistics.median(taken) * 1e6:.1f}", "rule" if width == rule else ""]
        for width, taken in costs.items()
    ]
    return TextTable(f"width: {work.name}, batch {work.batch_size}", ["models a stack", "us a model-step", ""], rows)


# --- many ------------------------------------------------------------------------------------------------------------


def many_models(n_candidates: int, epochs: int) -> tuple[float, float]:
    """Seconds a model of a randomised search, and the MB that it takes at its peak; in a process of its own."""
    work = replace(many_workload(), epochs=epochs)
    distribution = {"network__learning_rate": work.learning_rates}

    def search(n: int) -> None:
        settings = {"n_iter": n, "cv": work.n_folds, "random_state": 0, "refit": False}
        RandomizedSearchCV(pipeline(skdl_network(work)), distribution, **settings).fit(work.X, work.y)

    with skdl.train_together():
        search(2)
        before = common.status_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        taken = common.seconds(lambda: search(n_candidates))
    return taken / (n_candidates * work.n_folds), (common.status_bytes("VmHWM") - before) / 1e6


def many_section(report: Report, quick: bool) -> None:
    if not Path("/proc/self/clear_refs").exists():
        print("many: measured on Linux only\n")
        return
    seconds: Times = {"200": [], "2000": []}
    megabytes: Times = {"200": [], "2000": []}
    for _ in range(1 if quick else 3):
        for name in seconds:
            # A process that has searched before keeps some of its memory.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                taken, peak = pool.submit(many_models, int(name) // 5, 4 if quick else 20).result()
            seconds[name].append(taken)
            megabytes[name].append(peak)
    rows = [
        [name, f"{statistics.median(seconds[name]) * 1e3:.1f}", f"{statistics.median(megabytes[name]):.0f}"]
        for name in seconds
    ]
    report.table(TextTable("many: models of a 64-unit network on 500 rows", ["models", "ms a model", "peak MB"], rows))
    figures = [
        Figure("many", "2000 models over 200", "seconds a model", common.ratio(seconds, "2000", "200"), 1.0),
        Figure("many", "2000 models over 200", "peak of memory", common.ratio(megabytes, "2000", "200"), 1.5),
    ]
    report.add("many: ten times the models", figures)


# --- gpu -------------------------------------------------------------------------------------------------------------


def gpu_section(report: Report, quick: bool) -> None:
    if not torch.cuda.is_available():
        print("gpu: there is none here\n")
        return
    work = small_workload()
    together_search(replace(work, epochs=1), device="cuda")
    methods: dict[str, Callable[[], object]] = {
        "together": lambda: together_search(work, device="cuda"),
        "alone": lambda: skdl_search(work, device="cuda"),
    }
    times = common.interleaved(methods, 1 if quick else 3, limited={"alone": 1})
    report.table(times_table(f"gpu: {work.n_models} fits on {torch.cuda.get_device_name()}", work, times))
    figures = list(ratio_figures("gpu", times, {"alone": 1 / 30}))
    report.add("gpu: time of the search together over that of ...", figures)


SECTIONS: dict[str, Callable[[Report, bool], None]] = {
    "small": small_section,
    "large": large_section,
    "models": models_section,
    "width": width_section,
    "many": many_section,
    "gpu": gpu_section,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 repetition in place of 3")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between them")
    parser.add_argument("--out", type=Path, help="file for the figures (.csv) or the tables (Markdown)")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"--only: there is no section {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore", ConvergenceWarning)
    report = Report()
    print(common.machine() + "\n")
    warm_up()
    for name in wanted:
        SECTIONS[name](report, arguments.quick)
    print(report.summary())
    if arguments.out:
        report.write(arguments.out)


if __name__ == "__main__":
    main()
