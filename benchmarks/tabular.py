"""Defaults against defaults on raw frames: errors, calibration and fit times over a folder of data sets.

    python benchmarks/tabular.py FOLDER ... --out results.csv            # all methods that are installed, 3 splits
    python benchmarks/tabular.py FOLDER ... --out results.csv --methods skdl,hgb --splits 1
    python benchmarks/tabular.py --out results.csv --summary --plot errors.svg   # tables and picture of what is there
    python benchmarks/tabular.py --bundled --out results.csv             # data sets that come with scikit-learn

A folder holds one parquet file a data set, with the target in the column ``__target__`` (``--target``): numbers of
more than 50 different values are regression, anything else is classification; rows without a target are left out. At
most ``--rows`` rows are trained on and at most 10,000 tested, split at random, by class for classification. Every
method gets the raw frame, nothing but a seed, and one thread; those that want numbers get scikit-learn's usual
preprocessing in front. A line that is already in ``--out`` is not measured again, so that a run can be broken off and
go on.

error
    1 - accuracy, or the root mean squared error over the standard deviation of the target.
loss
    Log loss, or the mean absolute error over the same.
calibration error
    Expected calibration error of the largest probability in 15 bins of equal width; classification alone.

The summary compares each method with skdl by geometric means over data sets of the ratios of their means over splits:
of ``error + 0.01``, of ``loss``, and of the time of a fit.

"fast" is one plain network without bins or validation rows. Other libraries take part where they are installed:
lightgbm, xgboost, catboost, and pytabkit for RealMLP and TabM.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
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
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import skdl
from skdl.datasets import load_penguins

TEST_ROWS = 10_000
#: Numeric targets with more values than this are regression.
MAX_CLASSES = 50
#: Classes with fewer rows than this are left out.
MIN_CLASS_ROWS = 8
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Line:
    """One fit of one method; NaN where it failed or a figure has no meaning."""

    data: str
    method: str
    split: int
    task: str
    rows: int
    columns: int
    error: float
    loss: float
    calibration_error: float
    fit_seconds: float
    predict_seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data, self.method, self.split


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Training and test rows of one data set."""

    X: pd.DataFrame
    y: NDArray
    X_test: pd.DataFrame
    y_test: NDArray
    is_classification: bool


def bundled() -> dict[str, pd.DataFrame]:
    """Data sets that need no file."""
    frames = {"penguins": load_penguins(as_frame=True).frame.rename(columns={"species": "__target__"})}
    for load in (load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine):
        frame = load(as_frame=True).frame
        frames[load.__name__.removeprefix("load_")] = frame.rename(columns={"target": "__target__"})
    return frames


def split_of(frame: pd.DataFrame, target: str, n_rows: int, seed: int) -> Split:
    """Rows to train on and to test on, of those with a target; text and booleans become categorical columns."""
    frame = frame[frame[target].notna()]
    X, y = frame.drop(columns=target), frame[target]
    is_classification = not (pd.api.types.is_numeric_dtype(y) and y.nunique() > MAX_CLASSES)
    if is_classification:
        # Counts of a categorical column would be categories themselves.
        y = y.astype(str)
        frequent = y.map(y.value_counts()) >= MIN_CLASS_ROWS
        X, y = X[frequent], pd.Series(pd.factorize(y[frequent], sort=True)[0], index=y[frequent].index)
    is_number = {c: pd.api.types.is_numeric_dtype(X[c]) and X[c].dtype != bool for c in X.columns}
    X = X.astype({c: "float64" if number else "category" for c, number in is_number.items()})
    X, X_test, y, y_test = train_test_split(
        X, y, train_size=min(3 * len(X) // 4, n_rows), random_state=seed, stratify=y if is_classification else None
    )
    X_test, y_test = X_test.iloc[:TEST_ROWS], y_test.iloc[:TEST_ROWS]
    return Split(X, y.to_numpy(), X_test, y_test.to_numpy(), is_classification)


# --- methods ---------------------------------------------------------------------------------------------------------


def one_hot() -> Any:
    """Imputed and scaled numbers, one-hot categories."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    categories = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5, sparse_output=False)
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )


def make_skdl(is_classification: bool, seed: int, **parameters: Any) -> Any:
    estimator = skdl.MLPClassifier if is_classification else skdl.MLPRegressor
    return estimator(random_state=seed, device="cpu", **parameters)


def make_fast(is_classification: bool, seed: int) -> Any:
    return make_skdl(is_classification, seed, n_members=1, numeric_embedding=None, early_stopping=False)


def make_hgb(is_classification: bool, seed: int) -> Any:
    estimator = HistGradientBoostingClassifier if is_classification else HistGradientBoostingRegressor
    return estimator(random_state=seed, categorical_features="from_dtype")


def make_sklearn_mlp(is_classification: bool, seed: int) -> Any:
    if is_classification:
        return make_pipeline(one_hot(), MLPClassifier(early_stopping=True, random_state=seed))
    network = make_pipeline(one_hot(), MLPRegressor(early_stopping=True, random_state=seed))
    return TransformedTargetRegressor(network, transformer=StandardScaler())


def make_lightgbm(is_classification: bool, seed: int) -> Any:
    import lightgbm

    estimator = lightgbm.LGBMClassifier if is_classification else lightgbm.LGBMRegressor
    return estimator(random_state=seed, n_jobs=1, verbose=-1)


def make_xgboost(is_classification: bool, seed: int) -> Any:
    import xgboost

    estimator = xgboost.XGBClassifier if is_classification else xgboost.XGBRegressor
    return estimator(random_state=seed, n_jobs=1, enable_categorical=True, tree_method="hist")


class TextCategories:
    """CatBoost takes categories as text, and their names in ``fit``."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.predict_proba = lambda X: model.predict_proba(self._as_text(X))

    @staticmethod
    def _as_text(X: pd.DataFrame) -> pd.DataFrame:
        categories = X.select_dtypes("category").columns
        return X.assign(**{c: X[c].astype(object).where(X[c].notna(), "missing").astype(str) for c in categories})

    def fit(self, X: pd.DataFrame, y: NDArray) -> TextCategories:
        self.model.fit(self._as_text(X), y, cat_features=list(X.select_dtypes("category").columns))
        return self

    def predict(self, X: pd.DataFrame) -> NDArray:
        return np.ravel(self.model.predict(self._as_text(X)))


def make_catboost(is_classification: bool, seed: int) -> Any:
    import catboost

    estimator = catboost.CatBoostClassifier if is_classification else catboost.CatBoostRegressor
    return TextCategories(estimator(random_seed=seed, thread_count=1, verbose=0, allow_writing_files=False))


def make_pytabkit(name: str) -> Callable[[bool, int], Any]:
    def make(is_classification: bool, seed: int) -> Any:
        import pytabkit

        estimator = getattr(pytabkit, f"{name}_{'Classifier' if is_classification else 'Regressor'}")
        model = estimator(random_state=seed, device="cpu", n_threads=1)
        numbers = make_column_selector(dtype_include="number")
        filled = make_column_transformer((SimpleImputer(), numbers), remainder="passthrough")
        return make_pipeline(filled.set_output(transform="pandas"), model)

    return make


#: name: (the library it needs, how it is made).
METHODS: dict[str, tuple[str, Callable[[bool, int], Any]]] = {
    "skdl": ("skdl", make_skdl),
    "fast": ("skdl", make_fast),
    "sklearn mlp": ("sklearn", make_sklearn_mlp),
    "hgb": ("sklearn", make_hgb),
    "lightgbm": ("lightgbm", make_lightgbm),
    "xgboost": ("xgboost", make_xgboost),
    "catboost": ("catboost", make_catboost),
    "realmlp": ("pytabkit", make_pytabkit("RealMLP_TD")),
    "realmlp-s": ("pytabkit", make_pytabkit("RealMLP_TD_S")),
    "tabm": ("pytabkit", make_pytabkit("TabM_D")),
}


# --- measuring -------------------------------------------------------------------------------------------------------


def calibration_error(p: NDArray, y: NDArray) -> float:
    """Mean distance of confidence and accuracy, over bins of the confidence, weighted by their rows."""
    confidence, is_right = p.max(axis=1), p.argmax(axis=1) == y
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, confidence - is_right, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(y))


def measure(name: str, method: str, seed: int, split: Split) -> Line:
    task = "classification" if split.is_classification else "regression"
    about = (name, method, seed, task, *split.X.shape)
    model = METHODS[method][1](split.is_classification, seed)
    predictions: list[NDArray] = []
    predict = model.predict_proba if split.is_classification else model.predict
    try:
        fit_seconds = common.seconds(lambda: model.fit(split.X, split.y))
        predict_seconds = common.seconds(lambda: predictions.append(np.asarray(predict(split.X_test), dtype=float)))
    except Exception as error:
        print(f"{name}, {method}: {type(error).__name__}: {error}")
        return Line(*about, *[float("nan")] * 5)
    if split.is_classification:
        p = predictions[0].clip(1e-7, 1)
        p /= p.sum(axis=1, keepdims=True)
        wrong = float(np.mean(p.argmax(axis=1) != split.y_test))
        loss = log_loss(split.y_test, p, labels=np.arange(p.shape[1]))
        return Line(*about, wrong, loss, calibration_error(p, split.y_test), fit_seconds, predict_seconds)
    residual, deviation = predictions[0].ravel() - split.y_test, split.y_test.std()
    error, loss = np.sqrt(np.mean(residual**2)) / deviation, np.mean(np.abs(residual)) / deviation
    return Line(*about, float(error), float(loss), float("nan"), fit_seconds, predict_seconds)


def read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    types = {"str": str, "int": int, "float": float}
    with path.open(newline="") as file:
        return [Line(**{f.name: types[str(f.type)](row[f.name]) for f in fields(Line)}) for row in csv.DictReader(file)]


def append(path: Path, line: Line) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow([f.name for f in fields(Line)])
        writer.writerow(astuple(line))


def frames(arguments: argparse.Namespace) -> Iterator[tuple[str, pd.DataFrame]]:
    if arguments.bundled:
        yield from bundled().items()
    for folder in arguments.folders:
        for path in sorted(folder.glob("*.parquet")):
            yield path.stem, pd.read_parquet(path)


def run(arguments: argparse.Namespace, methods: Sequence[str]) -> None:
    known = {line.key for line in read(arguments.out)}
    for name, frame in frames(arguments):
        for seed in range(arguments.splits):
            split = split_of(frame, arguments.target, arguments.rows, seed)
            for method in methods:
                if (name, method, seed) not in known:
                    line = measure(name, method, seed, split)
                    append(arguments.out, line)
                    print(f"{name}, {method}, split {seed}: {line.error:.4f}, {line.fit_seconds:.2f} s", flush=True)


# --- summary ---------------------------------------------------------------------------------------------------------


def means(lines: Sequence[Line]) -> pd.DataFrame:
    """Each figure's mean over splits, by data set and method, of the data sets that no method failed on."""
    table = pd.DataFrame(lines).groupby(["data", "method"]).mean(numeric_only=True).unstack()
    return table[table["error"].notna().all(axis=1)]


def geometric_mean(ratios: pd.DataFrame) -> pd.Series:
    return np.exp(np.log(ratios).mean())


def summary(lines: Sequence[Line]) -> list[TextTable]:
    """A table of the methods, and one of the errors by data set."""
    table = means(lines)
    error, methods = table["error"], sorted(table["error"].columns)
    padded = error + 0.01
    columns = {
        "mean rank": error.rank(axis=1).mean(),
        "error": geometric_mean(padded.rdiv(padded["skdl"], axis=0)),
        "loss": geometric_mean(table["loss"].rdiv(table["loss"]["skdl"], axis=0)),
        "calibration error": table["calibration_error"].mean(),
        "fit time": geometric_mean(table["fit_seconds"].rdiv(table["fit_seconds"]["skdl"], axis=0)),
        "mean fit, s": table["fit_seconds"].mean(),
        "largest error over the best": padded.div(padded.min(axis=1), axis=0).max(),
    }
    rows = [[method, *(f"{column[method]:.3f}" for column in columns.values())] for method in methods]
    title = f"{len(error)} data sets; error, loss and fit time: skdl over the method"
    by_data = [[name, *(f"{values[method]:.4f}" for method in methods)] for name, values in error.iterrows()]
    return [
        TextTable(title, ["method", *columns], rows),
        TextTable("error by data set", ["data", *methods], by_data),
    ]


def plot(lines: Sequence[Line], path: Path) -> None:
    """Error against the time of a fit, both as geometric means over the data sets relative to skdl."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    table = means(lines)
    error = geometric_mean((table["error"] + 0.01).div(table["error"]["skdl"] + 0.01, axis=0))
    seconds = geometric_mean(table["fit_seconds"])
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method in error.index:
        axes.scatter(seconds[method], error[method], s=60, color="C1" if method == "skdl" else "C0")
        axes.annotate(method, (seconds[method], error[method]), xytext=(6, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="fit, seconds (geometric mean)", ylabel="error over that of skdl (geometric mean)")
    # Powers of ten alone are too few for times this close, and all digits too many.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    # Room for the names beside the points.
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    installed = [name for name, (library, _) in METHODS.items() if importlib.util.find_spec(library)]
    parser.add_argument("folders", nargs="*", type=Path, help="folders of parquet files")
    parser.add_argument("--bundled", action="store_true", help="data sets that come with scikit-learn and skdl")
    parser.add_argument("--out", type=Path, required=True, help="file for one line per fit (.csv)")
    parser.add_argument("--methods", default=",".join(installed), help=f"of {', '.join(METHODS)}, with commas")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4000, help="most training rows")
    parser.add_argument("--target", default="__target__", help="column of the target")
    parser.add_argument("--summary", action="store_true", help="measure nothing")
    parser.add_argument("--plot", type=Path, help="file for a picture of error against time")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"unknown methods: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    if not arguments.summary:
        run(arguments, methods)
    lines = [line for line in read(arguments.out) if line.method in methods]
    if not any(line.method == "skdl" for line in lines):
        parser.error("the summary compares with skdl: let it take part")
    print(common.machine(), "\n")
    for table in summary(lines):
        print(table.plain())
    if arguments.plot:
        plot(lines, arguments.plot)


if __name__ == "__main__":
    main()
