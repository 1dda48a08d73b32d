"""The training engine: jobs in, trained networks out. Knows torch, not scikit-learn."""
