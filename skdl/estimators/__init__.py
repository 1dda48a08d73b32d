"""The estimators: parameters and fitted attributes as scikit-learn has them, around jobs for the engine."""
