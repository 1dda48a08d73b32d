"""Imputation against the imputers of scikit-learn: errors, times, draws, and what a model makes of the result.

    python benchmarks/imputation.py --out imputation.csv                       # bundled data sets, 5 seeds
    python benchmarks/imputation.py FOLDER ... --out imputation.csv            # and the parquet files of folders
    python benchmarks/imputation.py --out imputation.csv --summary             # tables of what is there
    python benchmarks/imputation.py FOLDER --downstream                        # real holes: models after imputation
    python benchmarks/imputation.py FOLDER --categorical                       # mixed tables: cells of levels

Complete tables are split 70 / 30, and cells are hidden as in Muzellec et al. (2020): MCAR, each cell with probability
0.3; MAR, 30 % of the columns stay and a logistic model of them hides 30 % of the others; MNAR, a logistic model of
each column hides 30 % of itself. The error is the root of the mean squared error of the hidden cells, each column over
its standard deviation in the training rows, of the rows that the imputer was fitted on ("seen") and of the others.
Times are those of ``fit`` and ``transform`` of the training rows, in seconds of the processor. The columns are those
numeric ones with more than two values, of at most ``--rows`` rows. A line that is already in ``--out`` is not measured
again.

Draws: the share of the hidden cells of new rows that lie between the 5 % and the 95 % quantile of 100 draws, and the
continuous ranked probability score of the draws over that of draws from the Gaussian alone.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

# The first import fixes the number of threads for the others.
import _common as common
import numpy as np
import pandas as pd
from _common import TextTable
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skdl import DeepImputer

MASKS = ("MCAR", "MAR", "MNAR")
HIDDEN = 0.3
N_DRAWS = 100

METHODS: dict[str, Callable[[int], Any]] = {
    "deep": lambda seed: DeepImputer(random_state=seed, device="cpu"),
    "gaussian": lambda seed: DeepImputer(strategy="gaussian", random_state=seed),
    "bayesian_ridge": lambda seed: IterativeImputer(random_state=seed),
    "extra_trees": lambda seed: IterativeImputer(
        ExtraTreesRegressor(50, random_state=seed), max_iter=5, random_state=seed
    ),
    "knn": lambda seed: KNNImputer(),
}


@dataclass(frozen=True)
class Line:
    """One fit of one method; coverage and score of draws are NaN where it makes none."""

    data: str
    mask: str
    method: str
    seed: int
    rows: int
    columns: int
    seen: float
    unseen: float
    seconds: float
    coverage: float
    draw_score: float

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.data, self.mask, self.method, self.seed


# --- data ------------------------------------------------------------------------------------------------------------


def bundled() -> dict[str, pd.DataFrame]:
    """Data sets that need no file."""
    loads = (load_iris, load_wine, load_diabetes, load_breast_cancer)
    return {load.__name__.removeprefix("load_"): load(as_frame=True).data for load in loads}


def complete_table(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Numeric columns of more than two values, rows without holes."""
    numbers = frame.drop(columns="__target__", errors="ignore").select_dtypes("number").astype(float).dropna()
    return numbers.loc[:, numbers.nunique() > 2].to_numpy()


def hidden(x: NDArray, mask: str, random_state: np.random.RandomState) -> NDArray[np.bool_]:
    """Which cells to hide."""
    n_rows, n_columns = x.shape
    if mask == "MCAR":
        return random_state.random_sample(x.shape) < HIDDEN
    z = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-12)
    result = np.zeros(x.shape, dtype=bool)
    order = random_state.permutation(n_columns)
    n_kept = max(int(HIDDEN * n_columns), 1) if mask == "MAR" else 0
    for j in order[n_kept:]:
        logit = z[:, order[:n_kept]] @ random_state.randn(n_kept) if n_kept else z[:, j] * random_state.randn()
        logit /= logit.std() + 1e-12
        shift = brentq(lambda b, logit=logit: expit(logit + b).mean() - HIDDEN, -50, 50)
        result[:, j] = random_state.random_sample(n_rows) < expit(logit + shift)
    return result


# --- measure ---------------------------------------------------------------------------------------------------------


def error(imputed: NDArray, x: NDArray, is_hidden: NDArray[np.bool_], scale: NDArray) -> float:
    return float(np.sqrt(np.mean(((imputed - x) / scale)[is_hidden] ** 2)))


def crps(draws: NDArray, truth: NDArray) -> float:
    """Continuous ranked probability score, with the correction for a finite number of draws (Fair CRPS)."""
    n_draws = len(draws)
    ordered = np.sort(draws, axis=0)
    ranks = 2 * np.arange(1, n_draws + 1) - n_draws - 1
    spread = 2 * (ranks[:, None] * ordered).sum(axis=0) / (n_draws * (n_draws - 1))
    return float((np.abs(draws - truth).mean(axis=0) - spread / 2).mean())


def draw_figures(imputer: Any, table: NDArray, x: NDArray, is_hidden: NDArray, scale: NDArray) -> tuple[float, float]:
    """Coverage of 90 % intervals, and score of the draws."""
    tables = imputer.sample(table, N_DRAWS, random_state=0)
    draws = np.stack([(drawn / scale)[is_hidden] for drawn in tables])
    truth = (x / scale)[is_hidden]
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return float(((truth >= low) & (truth <= high)).mean()), crps(draws, truth)


def measure(name: str, x: NDArray, mask: str, method: str, seed: int) -> Line:
    """Fit an imputer on one mask of one data set."""
    random_state = np.random.RandomState(seed)
    is_hidden = hidden(x, mask, random_state)
    table = np.where(is_hidden, np.nan, x)
    order = random_state.permutation(len(x))
    seen, unseen = order[: int(0.7 * len(x))], order[int(0.7 * len(x)) :]
    scale = x[seen].std(axis=0)
    scale[scale == 0] = 1
    imputer = METHODS[method](seed)
    started = time.process_time()
    imputed = imputer.fit(table[seen]).transform(table[seen])
    seconds = time.process_time() - started
    new = imputer.transform(table[unseen])
    coverage = score = np.nan
    if hasattr(imputer, "sample"):
        coverage, score = draw_figures(imputer, table[unseen], x[unseen], is_hidden[unseen], scale)
    return Line(
        name, mask, method, seed, *x.shape,
        error(imputed, x[seen], is_hidden[seen], scale),
        error(new, x[unseen], is_hidden[unseen], scale),
        seconds, coverage, score,
    )  # fmt: skip


def read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    with path.open() as file:
        types = [str, str, str, int, int, int, *[float] * 5]
        return [Line(*(t(v) for t, v in zip(types, row, strict=True))) for row in list(csv.reader(file))[1:]]


def append(path: Path, line: Line) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(field.name for field in fields(Line))
        writer.writerow(astuple(line))


def tables(folders: Sequence[Path], n_rows: int, only: Sequence[str]) -> Iterator[tuple[str, NDArray]]:
    """Name and complete table of each data set."""
    frames = dict(bundled())
    for folder in folders:
        frames |= {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    for name, frame in frames.items():
        x = complete_table(frame)
        if (only and name not in only) or x.shape[1] < 3 or len(x) < 100:
            continue
        yield name, x[np.random.RandomState(0).permutation(len(x))[:n_rows]]


def run(arguments: argparse.Namespace) -> None:
    done = {line.key for line in read(arguments.out)}
    for name, x in tables(arguments.folders, arguments.rows, arguments.only.split(",") if arguments.only else ()):
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for mask in arguments.masks.split(","):
                for method in arguments.methods.split(","):
                    if (name, mask, method, seed) not in done:
                        line = measure(name, x, mask, method, seed)
                        append(arguments.out, line)
                        print(*astuple(line), flush=True)


# --- summary ---------------------------------------------------------------------------------------------------------


def summary(lines: Sequence[Line]) -> list[TextTable]:
    """Ratios of errors and times, by geometric means over seeds and data sets."""
    frame = pd.DataFrame(lines)
    logs = frame.assign(**{c: np.log(frame[c]) for c in ("seen", "unseen", "seconds", "draw_score")})
    means = logs.groupby(["mask", "method", "data"])[["seen", "unseen", "seconds", "coverage", "draw_score"]].mean()
    shown = []
    for ours in ("deep", "gaussian"):
        rows = []
        for peer in ("bayesian_ridge", "extra_trees", "knn", "gaussian"):
            for mask in frame["mask"].unique():
                if ours == peer or not {(mask, ours), (mask, peer)} <= set(means.index.droplevel("data")):
                    continue
                difference = (means.loc[mask, ours] - means.loc[mask, peer]).dropna(subset=["seen"])
                ratios = np.exp(difference)
                middle = np.exp(difference.mean())
                cells = [peer, mask, str(len(ratios))]
                for c in ("seen", "unseen"):
                    cells += [f"{middle[c]:.3f}", f"{ratios[c].max():.3f} ({ratios[c].idxmax()})"]
                rows.append([*cells, f"{middle['seconds']:.2f}"])
        header = ["over", "mask", "sets", "seen", "worst", "unseen", "worst", "time"]
        shown.append(TextTable(f"{ours}: error and time over those of", header, rows))
    draws = means.dropna(subset=["coverage"]).reset_index()
    rows = [
        [mask, method, f"{part.coverage.mean():.3f}", f"{part.coverage.min():.3f}", f"{part.coverage.max():.3f}"]
        for (mask, method), part in draws.groupby(["mask", "method"])
    ]
    shown.append(TextTable("coverage of 90 % intervals", ["mask", "method", "mean", "lowest", "highest"], rows))
    scores = draws.pivot_table(index=["mask", "data"], columns="method", values="draw_score")
    if {"deep", "gaussian"} <= set(scores.columns):
        ratio = np.exp(scores["deep"] - scores["gaussian"]).dropna().groupby("mask").agg(["mean", "max"])
        rows = [[mask, f"{row['mean']:.3f}", f"{row['max']:.3f}"] for mask, row in ratio.iterrows()]
        shown.append(TextTable("score of draws, deep over gaussian", ["mask", "mean", "worst"], rows))
    return shown


# --- real holes ------------------------------------------------------------------------------------------------------


def preparation(imputer: str, is_linear: bool) -> Any:
    """Imputation of a mixed frame, then numbers."""
    scale = StandardScaler() if is_linear else FunctionTransformer()
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encode = make_column_transformer(
        (one_hot, make_column_selector(dtype_include=["object", "category", "string", "bool"])), remainder=scale
    )
    if imputer == "deep":
        return make_pipeline(DeepImputer(random_state=0, device="cpu").set_output(transform="pandas"), encode)
    numbers = make_column_selector(dtype_include="number")
    text = make_column_selector(dtype_exclude="number")
    of_numbers = IterativeImputer(random_state=0) if imputer == "bayesian_ridge" else None
    of_numbers = of_numbers or SimpleImputer(strategy="median", add_indicator=True)
    impute = make_column_transformer(
        (of_numbers, numbers), (SimpleImputer(strategy="most_frequent"), text), verbose_feature_names_out=False
    )
    return make_pipeline(impute.set_output(transform="pandas"), encode)


def downstream(arguments: argparse.Namespace) -> TextTable:
    """Mean score of five folds of models after imputation."""
    rows = []
    for folder in arguments.folders:
        for path in sorted(folder.glob("*.parquet")):
            frame = pd.read_parquet(path).head(arguments.rows)
            y = frame.pop("__target__")
            classifies = not (pd.api.types.is_numeric_dtype(y) and y.nunique() > 20)
            is_number = {c: pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool for c in frame}
            frame = frame.astype({c: "float64" if number else "object" for c, number in is_number.items()})
            frame = frame.where(frame.notna(), np.nan)
            target = pd.factorize(y.astype(str))[0] if classifies else y.to_numpy(float)
            linear = LogisticRegression(max_iter=2000) if classifies else RidgeCV()
            forest = (RandomForestClassifier if classifies else RandomForestRegressor)(200, random_state=0)
            for name, model in (("linear", linear), ("forest", forest)):
                scores = [
                    cross_val_score(make_pipeline(preparation(imputer, name == "linear"), model), frame, target, cv=5)
                    for imputer in ("deep", "bayesian_ridge", "median")
                ]
                rows.append([path.stem, name, *(f"{score.mean():.4f}" for score in scores)])
                print(*rows[-1], flush=True)
    return TextTable("score after imputation", ["data", "model", "deep", "bayesian_ridge", "median + indicator"], rows)


# --- levels ----------------------------------------------------------------------------------------------------------

#: HistGradientBoosting takes no more levels of a column.
MAX_LEVELS = 250


def mixed_frame(path: Path, n_rows: int) -> tuple[pd.DataFrame, list[str]]:
    """Numbers as floats, all else as text; and the columns of text."""
    frame = pd.read_parquet(path).drop(columns="__target__")
    frame = frame.sample(min(n_rows, len(frame)), random_state=0, ignore_index=True)
    text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c]) or frame[c].dtype == bool]
    for c in frame:
        frame[c] = frame[c].astype(object).where(frame[c].notna(), None) if c in text else frame[c].astype(float)
        if c in text:
            frame[c] = frame[c].map(str, na_action="ignore")
    return frame, [c for c in text if 2 <= frame[c].nunique() <= MAX_LEVELS]


def boosted(table: pd.DataFrame, column: str) -> NDArray:
    """A column's cells by HistGradientBoosting on the other columns, which takes missing cells as they are."""
    others = table.drop(columns=column)
    text = [c for c in others if not pd.api.types.is_numeric_dtype(others[c])]
    others[text] = others[text].apply(lambda cells: cells.where(cells.map(cells.value_counts()) > 1))
    others[text] = others[text].astype("category")
    too_many = [c for c in text if others[c].nunique() > MAX_LEVELS]
    others = others.drop(columns=too_many)
    present = table[column].notna()
    model = HistGradientBoostingClassifier(random_state=0).fit(others[present], table.loc[present, column])
    return model.predict(others)


def categorical(arguments: argparse.Namespace) -> TextTable:
    """Share of the hidden cells of levels that are imputed wrongly, mean over columns and seeds."""
    rows, errors = [], []
    for path in (path for folder in arguments.folders for path in sorted(folder.glob("*.parquet"))):
        frame, columns = mixed_frame(path, arguments.rows)
        if not columns or frame.shape[1] > 200:
            continue
        wrong = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            is_hidden = pd.DataFrame(
                np.random.RandomState(seed).random_sample(frame.shape) < HIDDEN, columns=frame.columns
            )
            table = frame.mask(is_hidden)
            completed = DeepImputer(random_state=seed, device="cpu").fit_transform(table)
            for c in columns:
                asked = is_hidden[c] & frame[c].notna()
                truth = frame.loc[asked, c]
                imputed = completed.loc[asked, c], boosted(table, c)[asked], table[c].mode()[0]
                wrong.append([float((guess != truth).mean()) for guess in imputed])
        errors.append(np.mean(wrong, axis=0))
        rows.append([path.stem, *frame.shape, len(columns), *(f"{error:.4f}" for error in errors[-1])])
        print(*rows[-1], flush=True)
    deep, boosting, frequent = np.exp(np.mean(np.log(errors), axis=0))
    rows.append(["geometric mean", "", "", "", f"{deep:.4f}", f"{boosting:.4f}", f"{frequent:.4f}"])
    header = ["data", "rows", "columns", "of levels", "deep", "boosting", "most frequent"]
    return TextTable("share of wrong levels", header, [[str(cell) for cell in row] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imputation.csv"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--masks", default=",".join(MASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--only", default="", help="names of data sets, with commas between")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--downstream", action="store_true")
    parser.add_argument("--categorical", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*[Cc]onverge.*")
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    if arguments.downstream:
        print(downstream(arguments).plain())
        return
    if arguments.categorical:
        print(categorical(arguments).plain())
        return
    if not arguments.summary:
        run(arguments)
    print(common.machine())
    for table in summary(read(arguments.out)):
        print(table.plain())


if __name__ == "__main__":
    main()
