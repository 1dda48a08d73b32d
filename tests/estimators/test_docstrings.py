"""Docstrings name all that parameters accept: what registries hold is written out there by hand."""

import inspect
import re

import pytest
from sklearn.utils._param_validation import StrOptions

from skdl import (
    CNNClassifier,
    CNNRegressor,
    DeepImputer,
    MLPClassifier,
    MLPEstimator,
    MLPRegressor,
    RNNClassifier,
    RNNRegressor,
)

ESTIMATORS = (
    *(MLPClassifier, MLPRegressor, MLPEstimator, CNNClassifier, CNNRegressor),
    *(RNNClassifier, RNNRegressor, DeepImputer),
)
OPTIONS = [
    pytest.param(Estimator, parameter, allowed.options, id=f"{Estimator.__name__}-{parameter}")
    for Estimator in ESTIMATORS
    for parameter, constraints in Estimator._parameter_constraints.items()
    for allowed in constraints
    if isinstance(allowed, StrOptions)
]


def entry(Estimator, parameter):
    """What the docstring says of a parameter."""
    found = re.search(rf"^{parameter} : .*\n(?:    .*\n|\n)*", inspect.getdoc(Estimator), re.MULTILINE)
    assert found, f"{parameter} has no entry"
    return found[0]


@pytest.mark.parametrize(("Estimator", "parameter", "options"), OPTIONS)
def test_docstring_names_all_that_a_parameter_accepts(Estimator, parameter, options):
    said = entry(Estimator, parameter)
    refers = re.search(r"[Aa]s in\s+:class:`MLPClassifier`", said)
    assert refers or options <= set(re.findall(r'"(\w+)"', said))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_docstring_has_an_entry_for_each_parameter_and_its_default(Estimator):
    for parameter, default in Estimator().get_params().items():
        said = entry(Estimator, parameter)
        assert "default=" in said or said.startswith("scoring : None")
        if isinstance(default, str):
            assert f'default="{default}"' in said


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_types_in_docstrings_have_no_name_that_sphinx_takes_for_a_link(Estimator):
    types = re.findall(r"^\w.* : (.*)", inspect.getdoc(Estimator), re.MULTILINE)
    assert not [of_one for of_one in types if re.search(r"(?<![`\w])\w+_(?![`\w])", of_one)]
