"""What ``import skdl`` brings with it."""

import subprocess
import sys

LATER = ["sklearn.metrics", "sklearn.linear_model", "sklearn.neighbors", "sklearn.tree", "sklearn.model_selection"]
LATER += ["pandas", "polars", "pyarrow", "matplotlib", "PIL"]


def test_what_few_need_is_imported_when_it_is_needed():
    code = (
        "import torch, sklearn.base, sys; before = set(sys.modules); import skdl; "
        "print(*{name for name in sys.modules if name not in before})"
    )
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "skdl" in names and not set(LATER) & set(names)
