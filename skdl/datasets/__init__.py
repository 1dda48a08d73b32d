"""Small data sets that ship with the package."""

from skdl.datasets._penguins import load_penguins

__all__ = ["load_penguins"]
