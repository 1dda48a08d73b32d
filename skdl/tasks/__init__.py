"""The target side: encode y, the loss of each sample, decode outputs to labels, values and probabilities."""
