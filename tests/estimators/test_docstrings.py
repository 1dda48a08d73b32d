"""Docstrings name all that parameters accept, and those of methods are complete and about their own class."""

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context
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
from skdl.estimators.base import NetworkEstimator

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
#: The methods that the page of each class shows.
METHODS = [
    pytest.param(Estimator, method, id=f"{Estimator.__name__}-{method}")
    for Estimator in ESTIMATORS
    for method in re.search(
        rf"autoclass:: skdl\.{Estimator.__name__}\n   :members: (.*)",
        (Path(__file__).parents[2] / "docs" / "api.rst").read_text(),
    )[1].split(", ")
]
#: Words about other families than a class's own.
FOREIGN = {"MLP": r"imag|pixel|series|recurrent", "CNN": r"\bseries|recurrent|forecast", "RNN": r"\bimages?\b|pixel"}


def entry(Estimator, parameter):
    """What the docstring says of a parameter."""
    found = re.search(rf"^{parameter} : .*\n(?:    .*\n|\n)*", inspect.getdoc(Estimator), re.MULTILINE)
    assert found, f"{parameter} has no entry"
    return found[0]


@pytest.mark.parametrize(("Estimator", "parameter", "options"), OPTIONS)
def test_docstring_names_all_that_a_parameter_accepts(Estimator, parameter, options):
    said = entry(Estimator, parameter)
    refers = re.search(r"otherwise as in\s+:class:`MLPClassifier`", said)
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


@pytest.mark.parametrize(("Estimator", "method"), METHODS)
def test_docstring_of_a_method_says_what_goes_in_what_comes_out_and_what_is_refused(Estimator, method):
    said, signature = inspect.getdoc(getattr(Estimator, method)), inspect.signature(getattr(Estimator, method))
    assert not re.search(r"^ *\{\w+\}$", said, re.MULTILINE)
    named = ", ".join(re.findall(r"^(\w.*) : ", said.split("Returns\n")[0], re.MULTILINE)).split(", ")
    assert named == [name for name in signature.parameters if name != "self"]
    assert "Returns\n-------\n" in said and "Raises\n------\n" in said


@pytest.mark.parametrize(("Estimator", "method"), METHODS)
def test_docstring_of_a_method_is_about_its_own_family(Estimator, method):
    foreign = FOREIGN.get(Estimator.__name__[:3], "imag|pixel|series|recurrent")
    assert not re.search(foreign, inspect.getdoc(getattr(Estimator, method)))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_docstring_of_a_class_is_about_its_own_family(Estimator):
    assert not re.search(r"(MLP|CNN|RNN) estimator|[Rr]ecurrent networks only|if X is ", inspect.getdoc(Estimator))


def test_methods_with_docstrings_of_their_own_are_the_shared_ones():
    shared, own = NetworkEstimator.fit, MLPClassifier.fit
    assert own.__code__ is shared.__code__ and own.__kwdefaults__ == shared.__kwdefaults__
    assert inspect.signature(own) == inspect.signature(shared)
    assert own.__qualname__ == "MLPClassifier.fit" and pickle.loads(pickle.dumps(own)) is own
    with config_context(enable_metadata_routing=True):
        model = MLPClassifier(n_members=1, max_epochs=1).set_fit_request(sample_weight=True)
    model.fit(np.arange(20.0)[:, np.newaxis], np.arange(20) % 2)
    assert pickle.loads(pickle.dumps(model.predict))([[1.0]]).shape == (1,)
    assert CNNRegressor.transform.__doc__ != RNNRegressor.transform.__doc__
