"""Deep learning that behaves like scikit-learn."""

from skdl.data.series import SeriesWithTable
from skdl.data.windows import window
from skdl.estimators.cnn import CNNClassifier, CNNRegressor
from skdl.estimators.imputer import DeepImputer
from skdl.estimators.mlp import MLPClassifier, MLPEstimator, MLPRegressor
from skdl.estimators.rnn import RNNClassifier, RNNRegressor
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
