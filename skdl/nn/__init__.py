"""Networks as plain torch: every layer is aware of the model axis K. Knows nothing of scikit-learn."""
