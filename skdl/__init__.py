"""Deep learning that behaves like scikit-learn."""

from skdl.estimators.mlp import MLPClassifier, MLPEstimator, MLPRegressor

__version__ = "0.1.0"

__all__ = ["MLPClassifier", "MLPEstimator", "MLPRegressor"]
