# ruff: noqa: E402
"""What the benchmarks share: one thread, interleaved timing, tables of figures beside their targets.

Import this module before numpy and torch: the number of threads is fixed while they load.
"""

from __future__ import annotations

import csv
import os

for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

torch.set_num_threads(1)

Times = dict[str, list[float]]

#: Seconds so far. Processor time leaves out the waits for other processes, of a program on one thread.
clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Figure:
    """One measured number and the largest value it is meant to have; no target: for information."""

    section: str
    case: str
    what: str
    measured: float
    target: float | None = None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.measured <= self.target else "MISSED"

    def cells(self) -> list[str]:
        target = "" if self.target is None else f"{self.target:.2f}"
        return [self.case, self.what, f"{self.measured:.2f}", target, self.verdict]


FIGURE_HEADER = ["case", "figure", "measured", "at most", ""]


@dataclass(frozen=True)
class TextTable:
    """Rows of cells under a title."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def plain(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        rule = ["-" * width for width in widths]
        lines = [self._line(cells, widths) for cells in (self.header, rule, *self.rows)]
        return "\n".join([self.title, "", *lines, ""])

    @staticmethod
    def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(_aligned(cell, width) for cell, width in others)]).rstrip()

    def markdown(self) -> str:
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, ["---"] * len(self.header), *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, ""])


def _aligned(cell: str, width: int) -> str:
    is_number = cell[:1].isdigit() or cell[:1] == "-"
    return cell.rjust(width) if is_number else cell.ljust(width)


def figure_table(title: str, figures: Sequence[Figure]) -> TextTable:
    """The figures, one a row."""
    return TextTable(title, FIGURE_HEADER, [figure.cells() for figure in figures])


class Report:
    """Prints tables as they come and writes them all, with the figures, at the end."""

    def __init__(self) -> None:
        self.tables: list[TextTable] = []
        self.figures: list[Figure] = []

    def table(self, table: TextTable) -> None:
        self.tables.append(table)
        print(table.plain(), flush=True)

    def add(self, title: str, figures: Sequence[Figure]) -> None:
        self.figures.extend(figures)
        self.table(figure_table(title, figures))

    def summary(self) -> str:
        judged = [figure for figure in self.figures if figure.target is not None]
        missed = [figure for figure in judged if figure.verdict != "met"]
        lines = [f"{len(judged) - len(missed)} of {len(judged)} targets met."]
        lines += [f"  missed: {f.section}, {f.case}, {f.what}: {f.measured:.2f} > {f.target:.2f}" for f in missed]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Figures to a ``.csv`` file, or tables to a Markdown file."""
        if path.suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, [*Figure.__dataclass_fields__, "verdict"])
                writer.writeheader()
                writer.writerows(asdict(figure) | {"verdict": figure.verdict} for figure in self.figures)
        else:
            path.write_text(
                "\n".join([machine(), "", *(table.markdown() for table in self.tables), self.summary(), ""])
            )


def machine() -> str:
    """Where this ran, in a line."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores{load}, {versions}"


def seconds(function: Callable[[], object], calls: int = 1) -> float:
    """Seconds of a call; the median of several."""
    taken = []
    for _ in range(calls):
        started = clock()
        function()
        taken.append(clock() - started)
    return statistics.median(taken)


def interleaved(
    methods: Mapping[str, Callable[[], object]],
    repetitions: int,
    calls: int = 1,
    limited: Mapping[str, int] | None = None,
) -> Times:
    """Seconds of every method in every repetition, run in turns: A B C A B C, so that a noisy minute meets them all.

    Parameters
    ----------
    methods : mapping of str to callable
    repetitions : int
    calls : int, default=1
        Calls in a row whose median is one repetition, for methods of microseconds.
    limited : mapping of str to int, optional
        Methods that take part in the first few repetitions only.
    """
    times: Times = {name: [] for name in methods}
    for repetition in range(repetitions):
        for name, method in methods.items():
            if repetition < (limited or {}).get(name, repetitions):
                times[name].append(seconds(method, calls))
    return times


def status_bytes(field: str) -> int:
    """A line of Linux's account of this process: VmRSS, or VmHWM for the highest VmRSS so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def ratio(times: Times, name: str, other: str) -> float:
    """Median over the repetitions of one method's time over another's in the same repetition."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=False))


def readable(value: float) -> str:
    """A duration with its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
