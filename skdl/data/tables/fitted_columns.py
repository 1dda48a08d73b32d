"""The types of columns in ``fit``, and the values of later columns converted to them."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdl.data.tables.columns import MAX_EXACT_INTEGER, Column, Kind

#: What levels of numbers and booleans are called.
NUMBERS = "numbers or booleans"


@dataclass(frozen=True)
class FittedColumn:
    """What one column was in ``fit``, by which later ones are read or refused."""

    name: Any
    kind: Kind
    #: Whether it had no value, so that none can mean anything later.
    is_empty: bool
    #: Whether there were both text and numbers.
    is_mixture: bool
    #: Whether its numbers were durations, in seconds.
    has_durations: bool
    #: Whether its dates had a time zone.
    has_zone: bool
    #: What its levels were, such as text; nothing where it had none.
    level_types: frozenset[str]

    @classmethod
    def of(cls, column: Column) -> FittedColumn:
        """Remember a column of ``fit``."""
        kind: Kind = "numeric" if column.is_empty else column.kind
        return cls(
            name=column.name,
            kind=kind,
            is_empty=column.is_empty,
            is_mixture=column.is_mixture,
            has_durations=column.type.is_duration,
            has_zone=column.type.has_zone,
            level_types=_level_types(column),
        )

    def values(self, column: Column, *, converts_numbers: bool = False) -> NDArray:
        """The values of a column, as the one of ``fit`` has them.

        Parameters
        ----------
        column : Column
        converts_numbers : bool
            Whether numbers may stand where levels of ``fit`` were numbers or booleans, and such levels where numbers
            were. Files that forget types make one of the other: 1 is the level True, and the level 3 of a category.

        Raises
        ------
        ValueError
            If the column is of another kind, none of its levels can be one of ``fit``, its dates have a time zone that
            had none or lost theirs, or it has durations where there were numbers or the other way round.
        """
        if self.is_empty:
            return np.full(len(column.values), np.nan)
        values = column.as_kind(self.kind)
        if values is None and converts_numbers:
            values = self._converted(column)
        if values is None:
            raise ValueError(
                f"Column {column.name!r} is {column.kind}, but it was {self.kind} in fit. "
                "Convert it to the type that it had in fit."
            )
        self._check_durations(column)
        self._check_zone(column)
        self._check_level_types(column)
        return values

    def _converted(self, column: Column) -> NDArray | None:
        """Numbers as levels, where those of ``fit`` were numbers or booleans, and such levels as numbers; else None."""
        if {column.kind, self.kind} != {"numeric", "categorical"}:
            return None
        # Only one of the two has levels.
        if self.level_types | _level_types(column) != {NUMBERS}:
            return None
        if self.kind == "numeric":
            return np.array([np.nan if level is None else float(level) for level in column.values])
        levels = column.values.astype(object)
        levels[np.isnan(column.values)] = None
        # The next integer is rounded to this one.
        if np.nanmax(np.abs(column.values), initial=0) >= MAX_EXACT_INTEGER:
            raise ValueError(
                f"Column {column.name!r} has integers of 2**53 or more, which are rounded as numbers, but it was "
                "categorical in fit. Convert it to categories as well."
            )
        return levels

    def _check_durations(self, column: Column) -> None:
        """Refuse durations where ``fit`` had numbers, whose unit nobody knows, or the other way round."""
        if column.kind != "numeric" or column.is_empty or column.type.is_duration == self.has_durations:
            return
        given, fitted = ("numbers", "durations") if self.has_durations else ("durations", "numbers")
        raise ValueError(
            f"Column {column.name!r} has {given}, but those of fit were {fitted}. Convert it to the type that it had "
            "in fit."
        )

    def _check_zone(self, column: Column) -> None:
        """Refuse dates that have a time zone where those of ``fit`` had none, or the other way round."""
        if column.kind != "datetime" or column.is_empty or column.type.has_zone == self.has_zone:
            return
        if self.has_zone:
            raise ValueError(
                f"Column {column.name!r} has stamps without a time zone, but those of fit had one. Say which zone they "
                "are of: .dt.tz_localize('Europe/Berlin') in pandas, .dt.replace_time_zone('Europe/Berlin') in polars."
            )
        raise ValueError(
            f"Column {column.name!r} has stamps with a time zone, but those of fit had none. Bring them to the zone "
            "that those were of, and drop it: .dt.tz_convert('Europe/Berlin').dt.tz_localize(None) in pandas, "
            ".dt.convert_time_zone('Europe/Berlin').dt.replace_time_zone(None) in polars."
        )

    def _check_level_types(self, column: Column) -> None:
        """Refuse levels none of which can be one of ``fit``, such as "1" for 1: all would be unknown."""
        given, fitted = _level_types(column), self.level_types
        if given and fitted and given.isdisjoint(fitted):
            raise ValueError(
                f"Column {column.name!r} has levels that are {' and '.join(sorted(given))}, but those of fit were "
                f"{' and '.join(sorted(fitted))}. Convert it to the type that it had in fit."
            )


def mixtures(columns: Iterable[FittedColumn]) -> set[int]:
    """Places of the columns that mixed text and numbers, by whose text later ones are read."""
    return {i for i, column in enumerate(columns) if column.is_mixture}


def _level_types(column: Column) -> frozenset[str]:
    if column.kind != "categorical":
        return frozenset()
    return frozenset(_level_type(cell_type) for cell_type in set(map(type, column.values)) - {type(None)})


def _level_type(cell_type: type) -> str:
    if issubclass(cell_type, str):
        return "text"
    # True is 1, and is found where 1 was a level.
    return NUMBERS if issubclass(cell_type, numbers.Number | np.bool_) else cell_type.__name__
