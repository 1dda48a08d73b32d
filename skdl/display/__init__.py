"""Figures of fitted estimators, drawn by matplotlib in the style of scikit-learn's displays."""

from skdl.display.saliency import SaliencyDisplay

__all__ = ["SaliencyDisplay"]
