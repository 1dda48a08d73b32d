"""Models that are solved, not trained: Gaussians of rows with missing cells, and linear models of series."""
