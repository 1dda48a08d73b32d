"""The Palmer penguins as they are documented."""

import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skdl.datasets import load_penguins

FEATURES = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "year"]


def test_bunch_of_arrays():
    bunch = load_penguins()
    assert bunch.data.shape == (344, 7) and bunch.data.dtype == object
    assert bunch.target.shape == (344,) and bunch.target.dtype.kind == "U"
    assert bunch.feature_names == FEATURES and bunch.frame is None
    assert bunch.target_names.tolist() == ["Adelie", "Chinstrap", "Gentoo"]


def test_frame():
    bunch = load_penguins(as_frame=True)
    assert list(bunch.frame.columns) == ["species", *FEATURES]
    assert list(bunch.data.columns) == FEATURES and bunch.target.name == "species"
    assert [pd.api.types.is_numeric_dtype(dtype) for dtype in bunch.data.dtypes] == [0, 1, 1, 1, 1, 0, 1]
    pd.testing.assert_frame_equal(bunch.frame[FEATURES], bunch.data)


@pytest.mark.parametrize("as_frame", [False, True])
def test_a_pair_is_data_and_target_of_the_bunch(as_frame):
    X, y = load_penguins(as_frame=as_frame, return_X_y=True)
    bunch = load_penguins(as_frame=as_frame)
    assert pd.DataFrame(X).equals(pd.DataFrame(bunch.data)) and list(y) == list(bunch.target)


def test_numbers_of_the_publication():
    frame = load_penguins(as_frame=True).frame
    assert frame["species"].value_counts().to_dict() == {"Adelie": 152, "Gentoo": 124, "Chinstrap": 68}
    assert frame.isna().sum()[lambda n: n > 0].to_dict() == dict.fromkeys(FEATURES[1:5], 2) | {"sex": 11}
    assert frame.isna().any(axis=1).sum() == 11
    assert frame["year"].value_counts().to_dict() == {2007: 110, 2008: 114, 2009: 120}
    # Horst, Hill and Gorman (2020): mean flipper lengths.
    means = frame.groupby("species")["flipper_length_mm"].mean().round(1)
    assert means.to_dict() == {"Adelie": 190.0, "Chinstrap": 195.8, "Gentoo": 217.2}
    assert set(frame.loc[frame["species"] == "Gentoo", "island"]) == {"Biscoe"}


def test_arrays_and_frame_hold_the_same():
    arrays, frame = load_penguins().data, load_penguins(as_frame=True).data
    assert_array_equal(pd.isna(arrays), frame.isna().to_numpy())
    assert_array_equal(arrays[:, 4].astype(float), frame["body_mass_g"])


def test_a_call_gives_data_of_its_own():
    load_penguins().data[0, 0] = "spoiled"
    assert load_penguins().data[0, 0] == "Torgersen"


def test_description_names_source_and_licence():
    description = load_penguins().DESCR
    assert "CC0" in description and "Kristen Gorman" in description and "10.5281/zenodo.3960218" in description


@pytest.mark.parametrize("arguments", [(True,), (True, True)])
def test_arguments_have_names(arguments):
    with pytest.raises(TypeError):
        load_penguins(*arguments)


def test_frames_without_pandas_name_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        load_penguins(as_frame=True)
    assert np.shape(load_penguins().data) == (344, 7)
