"""The estimators: the only place where scikit-learn meets torch."""
