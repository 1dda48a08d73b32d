"""Raw X to tensors: encoders that learn from training rows only."""
