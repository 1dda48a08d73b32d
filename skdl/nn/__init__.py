"""Networks as plain torch. Knows nothing of scikit-learn."""
