"""Runs the cases of another device in a process of their own: torch takes up devices before its first backward pass."""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("other_device_cases.py")


def test_cases_of_another_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(CASES)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=CASES.parents[2])

    assert ended.returncode == 0, ended.stdout
