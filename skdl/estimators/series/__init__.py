"""Estimators of series."""
