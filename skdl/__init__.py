"""Deep learning that behaves like scikit-learn."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skdl.data.series.series_reading import SeriesWithTable
    from skdl.data.series.windows import window
    from skdl.estimators.images.cnn import CNNClassifier, CNNRegressor
    from skdl.estimators.imputation.imputer import DeepImputer
    from skdl.estimators.series.rnn import RNNClassifier, RNNRegressor
    from skdl.estimators.tables.mlp import MLPClassifier, MLPEstimator, MLPRegressor
    from skdl.model_selection.together import train_together

__version__ = "0.1.0"

__all__ = [
    "CNNClassifier",
    "CNNRegressor",
    "DeepImputer",
    "MLPClassifier",
    "MLPEstimator",
    "MLPRegressor",
    "RNNClassifier",
    "RNNRegressor",
    "SeriesWithTable",
    "train_together",
    "window",
]

#: Where each name comes from; a package is itself. It is imported when it is first asked for: who wants tables need not
#: wait for images.
_MODULES = {
    "datasets": "skdl.datasets",
    "display": "skdl.display",
    "CNNClassifier": "skdl.estimators.images.cnn",
    "CNNRegressor": "skdl.estimators.images.cnn",
    "DeepImputer": "skdl.estimators.imputation.imputer",
    "MLPClassifier": "skdl.estimators.tables.mlp",
    "MLPEstimator": "skdl.estimators.tables.mlp",
    "MLPRegressor": "skdl.estimators.tables.mlp",
    "RNNClassifier": "skdl.estimators.series.rnn",
    "RNNRegressor": "skdl.estimators.series.rnn",
    "SeriesWithTable": "skdl.data.series.series_reading",
    "train_together": "skdl.model_selection.together",
    "window": "skdl.data.series.windows",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import_module(_MODULES[name])
    value = globals()[name] = getattr(module, name, module)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES} - {"TYPE_CHECKING"})
