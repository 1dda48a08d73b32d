"""What ``import skdl`` brings with it."""

import subprocess
import sys


def test_the_import_brings_little_beyond_torch_and_the_base_of_scikit_learn():
    code = (
        "import torch, sklearn.base, sys; before = set(sys.modules); import skdl; "
        "print(*{name for name in sys.modules if name not in before})"
    )
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    # Callbacks are part of every estimator's class.
    known = ("skdl", "sklearn.callback", "sklearn.utils")
    assert [name for name in names if not name.startswith(known)] == []
