"""The training parameters that all estimators share: names, defaults, constraints and their documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from skdl.engine.optimizers import RULES
from skdl.engine.schedules import SHAPES
from skdl.nn.activations import ACTIVATIONS

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PENALTY = [Interval(Real, 0, None, closed="left")]


@dataclass(kw_only=True, eq=False, repr=False)
class TrainingParameters(CallbackSupportMixin, BaseEstimator):
    """How a network is trained."""

    optimizer: str = "adamw"
    momentum: float = 0.9
    nesterov: bool = True
    learning_rate: float = 3e-3
    lr_schedule: str = "cosine"
    lr_warmup: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.1
    gradient_clip: float | None = None
    batch_size: int | str = "auto"
    max_epochs: int | str = "auto"
    early_stopping: bool | str = "auto"
    validation_fraction: float | str = "auto"
    n_members: int | str = "auto"
    n_iter_no_change: int | str = "auto"
    tol: float | str = "auto"
    scoring: Any = None
    warm_start: bool = False
    random_state: Any = None
    device: str | torch.device = "auto"
    dtype: str = "float32"
    verbose: int = 0

    _training_constraints = {
        "optimizer": [StrOptions(set(RULES))],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterov": ["boolean"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions(set(SHAPES))],
        "lr_warmup": [Interval(Real, 0, 1, closed="left")],
        "l1": PENALTY,
        "l2": PENALTY,
        "weight_decay": PENALTY,
        "gradient_clip": [None, Interval(Real, 0, None, closed="neither")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "n_members": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_iter_no_change": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "tol": [StrOptions({"auto"}), *PENALTY],
        "scoring": [None, str, callable],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "float64", "bfloat16"})],
        "verbose": ["verbose"],
    }

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # scikit-learn inspects the constructor at every call, which is some 14 times a fit of a search.
        if cls not in _PARAMETER_NAMES:
            _PARAMETER_NAMES[cls] = super()._get_param_names()
        return _PARAMETER_NAMES[cls].copy()

    def _validate_params(self) -> None:
        if get_config()["skip_parameter_validation"]:
            return
        parameters = self.get_params(deep=False)
        own_class: Any = type(self)
        validate_parameter_constraints(_constraints(own_class), parameters, caller_name=own_class.__name__)


#: The names of each class that has been asked for them.
_PARAMETER_NAMES: dict[type, list[str]] = {}


class _WholeNumbers(Interval):
    """An interval of integers without True and False, which scikit-learn's takes for 1 and 0."""

    def is_satisfied_by(self, val: Any) -> bool:
        return not isinstance(val, bool) and super().is_satisfied_by(val)


@cache
def _constraints(estimator_class: Any) -> dict[str, Any]:
    """What the parameters of a class may be, integers no booleans."""
    allowed = estimator_class._parameter_constraints
    return {name: _without_booleans(of_one) for name, of_one in allowed.items()}


def _without_booleans(allowed: Any) -> Any:
    """What a parameter may be, its integers no booleans."""
    if not isinstance(allowed, list):
        return allowed
    return [
        _WholeNumbers(Integral, one.left, one.right, closed=one.closed)
        if isinstance(one, Interval) and one.type is Integral
        else one
        for one in allowed
    ]


def listed(names: Iterable[str]) -> str:
    """Names as the entry of a parameter lists them."""
    return ", ".join(f'"{name}"' for name in names)


ACTIVATION_DOC = f"""
activation : str or callable, default="relu"
    {listed(ACTIVATIONS)},
    a function of one tensor, or a module class without parameters such as :class:`torch.nn.Hardswish`.
"""

#: Of all families; where one decides for itself, it has an entry of its own.
TRAINING_DOC = """
optimizer : {optimizers}, default="adamw"
    Update rule. Weight decay is decoupled under every rule, so "adam" and "adamw" are the same. "muon" (Jordan et al.
    2024) orthogonalises the update of each layer's weights except the last layer's, at 7 times ``learning_rate``, and
    updates all other parameters by Adam with a shorter memory; ``l1`` then acts only approximately as stated.
momentum : float in [0, 1), default=0.9
    Momentum of "sgd".
nesterov : bool, default=True
    Whether the momentum of "sgd" is Nesterov's.
learning_rate : float, default=3e-3
    Peak learning rate of the schedule. Tune this parameter first.
lr_schedule : {schedules}, default="cosine"
    How the learning rate changes over ``max_epochs``. "cosine" falls to zero; "one_cycle" rises for 30 % of the steps
    and then falls to zero; "step" is divided by 10 after each third; "exponential" falls to 1 % of its start; "plateau"
    is halved whenever the loss (the validation score, if there is one) has not improved for five epochs.
lr_warmup : float in [0, 1), default=0
    Fraction of the steps over which the learning rate first rises linearly.
l1 : float, default=0
    Penalty ``l1 * sum(abs(w))`` on the weights, never on biases. A proximal step makes weights exactly zero.
l2 : float, default=0
    Penalty ``l2 / 2 * sum(w ** 2)`` on the weights, never on biases, added to the mean loss of the samples.
weight_decay : float, default=0.1
    Decoupled weight decay (Loshchilov and Hutter 2019): each step also multiplies the weights by ``1 - learning_rate *
    weight_decay``.
gradient_clip : float or None, default=None
    Maximum norm of the gradient over all parameters.
batch_size : int or "auto", default="auto"
    Rows per training step.
max_epochs : int or "auto", default="auto"
    Number of passes over the training rows, or the maximum under early stopping.
early_stopping : bool or "auto", default="auto"
    Whether to hold out ``validation_fraction`` of the rows (none if ``fit`` is given ``X_val``), stop when their score
    no longer improves, and keep the parameters of the best epoch.
validation_fraction : float in (0, 1) or "auto", default="auto"
    Fraction of the rows that each network holds out at random, stratified by class or by rank of the target. With
    "auto", several networks hold out one fold each, so that every row trains all networks but one; a single network
    holds out 10 %.
n_members : int or "auto", default="auto"
    Number of networks to train side by side and average.
n_iter_no_change : int or "auto", default="auto"
    Number of epochs without a better validation score after which training stops. "auto" is the number of epochs up to
    the last better one plus 6, but at most 20.
tol : float or "auto", default="auto"
    Minimum improvement of the score that counts for ``n_iter_no_change``. "auto" is 0.0001 for classification, where
    the loss of classes that can be told apart without error would fall for hundreds of epochs, and 0 for regression.
scoring : str, callable or None, default=None
    Validation score: a name from :func:`sklearn.metrics.get_scorer_names`, a callable ``scorer(estimator, X, y)``, or
    None for the negative loss. Among epochs with equal scores, the one with the smallest validation loss is best.
    Without validation rows, no scores are computed.
warm_start : bool, default=False
    Whether ``fit`` continues from the parameters and the optimiser state of the last ``fit``, with its encoding of X
    and y. On the same rows each network holds out the same rows as in the last ``fit``; on other rows, scores and
    ``out_of_fold_`` may include rows that it was trained on then.
random_state : int, RandomState instance or None, default=None
    Determines initial weights, the order of the rows, dropout masks and the held-out rows. None uses numpy's global
    random state, as everywhere in scikit-learn; no other global state is read or changed.
device : str or torch.device, default="auto"
    "auto", "cpu", "cuda", "cuda:1", ..., or "mps". "auto" uses a GPU if there is one. Fitted estimators always hold CPU
    tensors.
dtype : {"float32", "float64", "bfloat16"}, default="float32"
    Precision of the training. "bfloat16" computes matrix products in bfloat16 and everything else in float32; it needs
    a GPU.
verbose : int, default=0
    Print a line every ``verbose`` epochs.
""".replace("{optimizers}", f"{{{listed(RULES)}}}").replace("{schedules}", f"{{{listed(SHAPES)}}}")

#: Of all families of classifiers and regressors.
FITTED_DOC = """
network_ : torch.nn.Module
    The trained network, or the ensemble of several, in eval mode, on the CPU. It takes encoded inputs.
n_features_in_ : int
    Number of columns of X.
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of the columns of X, if all are strings.
n_iter_ : int
    Number of epochs of the last ``fit`` and of any later calls of ``partial_fit``.
loss_ : float
    Mean training loss during the epoch whose parameters were kept.
best_loss_ : float or None
    Smallest training loss of an epoch; None if there were validation rows.
loss_curve_ : list of float
    Training loss of each epoch counted by ``n_iter_``.
validation_scores_ : list of float or None
    Validation score of each epoch counted by ``n_iter_``, as ``scoring`` says; NaN where there were no validation rows,
    None if there never were any.
best_validation_score_ : float or None
    The best of the last call's scores; with several networks, the mean of their best scores. None if it had no
    validation rows.
out_of_fold_ : ndarray or None
    What networks that did not train on a sample predict for it; NaN for samples that no network held out. None if no
    rows were held out.
history_ : structured ndarray
    One row per epoch: epoch, loss, validation_loss, validation_score, learning_rate, seconds.
    ``pandas.DataFrame(history_)`` converts it to a frame.
n_layers_ : int
    Number of layers, including input and output.
n_outputs_ : int
    Number of outputs of the network.
out_activation_ : str
    "logistic", "softmax" or "identity".
t_ : int
    Number of training samples seen, over all epochs and networks.
"""


def is_auto(value: Any) -> TypeIs[str]:
    """Whether the value of a parameter is left to the estimator."""
    return isinstance(value, str) and value == "auto"


def layer_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Sizes of layers, given as one integer or one per layer.

    Raises
    ------
    ValueError
        With the parameter's name.
    """
    sizes = np.atleast_1d(np.asarray(value))
    if sizes.size and (sizes.ndim != 1 or sizes.dtype.kind not in "iu" or sizes.min() < 1):
        raise ValueError(f"{name} must be integers of at least 1, one per layer. Got {value!r}.")
    return tuple(sizes.astype(int).tolist())


def with_entries(doc: str, **entries: str) -> str:
    """A section with the entries of some parameters replaced."""
    for name, entry in entries.items():
        doc, n_replaced = re.subn(
            rf"^{name} : .*\n(?:    .*\n)+", entry.lstrip("\n").replace("\\", r"\\"), doc, flags=re.M
        )
        assert n_replaced == 1, name
    return doc


def with_defaults(doc: str, **defaults: str) -> str:
    """A section with other defaults of some parameters."""
    for name, default in defaults.items():
        doc, n_replaced = re.subn(rf"^({name} : .*default=).*$", rf"\g<1>{default}", doc, flags=re.M)
        assert n_replaced == 1, name
    return doc


Class = TypeVar("Class", bound=type)

#: A line of a docstring in whose place a section stands.
PLACEHOLDER = re.compile(r"^\{(\w+)\}$", flags=re.MULTILINE)


def documented(**sections: str) -> Callable[[Class], Class]:
    """Fill the lines ``{name}`` in the docstrings of a class and its public methods with the section of that name.

    A method that has such lines, inherited or not, is replaced by a copy, whose docstring is about this class alone.
    """

    def filled(doc: str) -> str:
        return PLACEHOLDER.sub(lambda line: sections[line[1]].strip("\n"), inspect.cleandoc(doc))

    def fill(cls: Class) -> Class:
        assert "{training}" in (cls.__doc__ or ""), cls
        cls.__doc__ = filled(cls.__doc__ or "")
        for name in dir(cls):
            method = inspect.getattr_static(cls, name)
            if not name.startswith("_") and inspect.isfunction(method):
                doc = inspect.cleandoc(method.__doc__ or "")
                if PLACEHOLDER.search(doc):
                    setattr(cls, name, _copy_of_method(method, cls, filled(doc)))
        return cls

    return fill


def _copy_of_method(method: FunctionType, cls: type, doc: str) -> FunctionType:
    """The same code, not a call of it: errors and profiles show no further frame."""
    copied = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    # What the method itself wraps is there, but not the method, whose docstring is unfilled.
    copied.__dict__.update(method.__dict__)
    copied.__kwdefaults__, copied.__annotations__ = method.__kwdefaults__, method.__annotations__
    copied.__doc__ = doc
    copied.__module__, copied.__qualname__ = cls.__module__, f"{cls.__qualname__}.{method.__name__}"
    return copied
