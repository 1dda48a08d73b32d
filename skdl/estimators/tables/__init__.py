"""Estimators of tables."""
