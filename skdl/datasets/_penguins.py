"""The Palmer penguins: a small table with categories, numbers and missing values."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.utils import Bunch

TARGET = "species"
TEXT_COLUMNS = ("species", "island", "sex")
MISSING = "NA"

DESCR = """\
Palmer penguins
---------------

Measurements of 344 adult penguins of three species, taken from 2007 to 2009 on three islands of the Palmer
Archipelago, Antarctica.

:Number of samples: 344 (152 Adelie, 124 Gentoo, 68 Chinstrap)
:Number of features: 7
:Missing values: 19, in 11 samples: 2 in each of the four measurements, 11 in sex

======================  ============================================
island                  Biscoe, Dream or Torgersen
bill_length_mm          length of the bill, millimetres
bill_depth_mm           depth of the bill, millimetres
flipper_length_mm       length of the flipper, millimetres
body_mass_g             body mass, grams
sex                     female or male
year                    year of the study
species (the target)    Adelie, Chinstrap or Gentoo
======================  ============================================

Source: Kristen Gorman and the Palmer Station Long Term Ecological Research Program; made available as a table by
Allison Horst, Alison Hill and Kristen Gorman, https://allisonhorst.github.io/palmerpenguins/.

Licence: CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/.

References:

- Gorman KB, Williams TD, Fraser WR (2014). Ecological sexual dimorphism and environmental variability within a
  community of Antarctic penguins (genus Pygoscelis). PLoS ONE 9(3): e90081. doi:10.1371/journal.pone.0090081
- Horst AM, Hill AP, Gorman KB (2020). palmerpenguins: Palmer Archipelago (Antarctica) penguin data. R package
  version 0.1.0. doi:10.5281/zenodo.3960218
"""


def load_penguins(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the Palmer penguins: three species to be classified by their measurements.

    A typical raw table, with numeric columns, text columns, and missing values in both.

    ==================   ==============
    Samples              344
    Features             7
    Classes              3
    Missing values       19
    ==================   ==============

    Parameters
    ----------
    as_frame : bool, default=False
        If True, the data are a pandas DataFrame with one dtype per column, and the target is a pandas Series.
        If False, they are numpy arrays: the data of dtype object, the target of strings.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        A dictionary-like object with these attributes.

        data : ndarray of shape (344, 7), dtype object, or DataFrame
            The features. Missing values are NaN.
        target : ndarray of shape (344,) or Series
            The species, as strings.
        feature_names : list of str
            The names of the columns of ``data``.
        target_names : ndarray of shape (3,)
            The names of the species, in alphabetical order.
        frame : DataFrame of shape (344, 8) or None
            Features and target in one table, if ``as_frame=True``.
        DESCR : str
            What the columns mean, where the data come from, and their licence.
        filename : str
            The path of the CSV file.
    (data, target) : tuple
        If ``return_X_y=True``.

    Raises
    ------
    ImportError
        If ``as_frame=True`` and pandas is not installed.

    Notes
    -----
    The data are in the public domain (CC0 1.0). They were collected by Kristen Gorman and the Palmer Station Long
    Term Ecological Research Program [1]_ and published as a table by Horst, Hill and Gorman [2]_.

    References
    ----------
    .. [1] Gorman KB, Williams TD, Fraser WR (2014). Ecological sexual dimorphism and environmental variability
       within a community of Antarctic penguins (genus Pygoscelis). PLoS ONE 9(3): e90081.
       https://doi.org/10.1371/journal.pone.0090081
    .. [2] Horst AM, Hill AP, Gorman KB (2020). palmerpenguins: Palmer Archipelago (Antarctica) penguin data.
       R package version 0.1.0. https://doi.org/10.5281/zenodo.3960218

    Examples
    --------
    >>> from skdl.datasets import load_penguins
    >>> X, y = load_penguins(as_frame=True, return_X_y=True)
    >>> X.shape
    (344, 7)
    >>> X.isna().sum().loc[["body_mass_g", "sex"]].to_dict()
    {'body_mass_g': 2, 'sex': 11}
    >>> y.value_counts().to_dict()
    {'Adelie': 152, 'Gentoo': 124, 'Chinstrap': 68}
    """
    source = files("skdl.datasets") / "data" / "penguins.csv"
    columns = _columns(list(csv.DictReader(source.read_text(encoding="utf-8").splitlines())))
    features = {name: values for name, values in columns.items() if name != TARGET}
    species = columns[TARGET]

    frame = None
    data: Any = np.array(list(features.values()), dtype=object).T
    target: Any = np.array(species)
    if as_frame:
        frame = _pandas().DataFrame(columns)
        data, target = frame[list(features)], frame[TARGET]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        feature_names=list(features),
        target_names=np.unique(species),
        frame=frame,
        DESCR=DESCR,
        filename=str(source),
    )


def _columns(records: list[dict[str, str]]) -> dict[str, list[Any]]:
    """The columns by name, each with values of one kind."""
    return {name: _column(name, [record[name] for record in records]) for name in records[0]}


def _column(name: str, cells: list[str]) -> list[Any]:
    if name == "year":
        return [int(cell) for cell in cells]
    parse = str if name in TEXT_COLUMNS else float
    return [np.nan if cell == MISSING else parse(cell) for cell in cells]


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "load_penguins(as_frame=True) needs pandas. Install it with `pip install pandas`, "
            "or call load_penguins(as_frame=False) for numpy arrays."
        ) from error
    return pandas
