"""Imputation of missing cells of tables."""
