"""Callbacks, scorers and progress lines of a fit, called by the engine while it trains."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sklearn import config_context, get_config
from torch import Tensor, nn

from skdl.data.table import Encoder, Table
from skdl.engine.job import Epoch, EpochRecord, Job, Monitor


@dataclass
class ValidationScorer:
    """A scikit-learn scorer on fixed validation rows.

    ``encoder`` is what the scorer's view of the estimator encodes X by, and ``table`` is X encoded; None if that is as
    in training.
    """

    scorer: Callable[..., float]
    X: Any
    y: NDArray
    sample_weight: NDArray | None
    encoder: Encoder | None = None
    table: Table | None = None

    def show_outputs(self, view: Any, outputs: NDArray) -> None:
        """Let a view of the estimator know its outputs for X, which were found in training."""
        if self.encoder is not None:
            view._encoder, outputs = self.encoder, view._table_outputs(self.table)
        view._scored_outputs = (self.X, outputs)

    def __call__(self, estimator: Any) -> float:
        is_weighted = self.sample_weight is not None and _accepts_weight(self.scorer)
        weights = {"sample_weight": self.sample_weight} if is_weighted else {}
        try:
            score = self.scorer(estimator, self.X, self.y, **weights)
        except ValueError as error:
            raise ValueError(
                f"scoring failed on the {len(self.y)} validation rows of a network: {str(error).rstrip('. ')}. "
                "Check that the scorer suits the target, for example its average or pos_label. If the rows lack a "
                "class, use fewer n_members or a larger validation_fraction, or set scoring=None."
            ) from error
        try:
            return float(score)
        except (TypeError, ValueError) as error:
            raise TypeError(f"scoring must be a scorer that gives one number. It gave {score!r} instead.") from error


def _accepts_weight(scorer: Callable[..., float]) -> bool:
    routing = getattr(scorer, "get_metadata_routing", None)
    requests = {} if routing is None else getattr(getattr(routing(), "score", None), "requests", {})
    if requests.get("sample_weight") is False:
        # The user has said so, by set_score_request.
        return False
    accepts = getattr(scorer, "_accept_sample_weight", None)
    return accepts() if accepts is not None else "sample_weight" in inspect.signature(scorer).parameters


@dataclass(frozen=True)
class Answer:
    """What callbacks made of the begin or the end of an epoch, to be said again where training starts again."""

    stops: bool = False
    error: Exception | None = None

    @classmethod
    def of(cls, ask: Callable[[], bool | None]) -> Answer:
        try:
            return cls(stops=bool(ask()))
        except Exception as error:
            return cls(error=error)

    def heeded(self) -> bool:
        """Whether the fit is to stop."""
        if self.error is not None:
            raise self.error
        return self.stops


class FitMonitor(Monitor):
    """Passes a fit's epochs on to scikit-learn's callbacks, scorers and the screen.

    Parameters
    ----------
    estimator : estimator
        With all fitted attributes that prediction needs, except ``network_``.
    module_of : callable
        Makes ``network_`` of the jobs of the fit's networks and their parameter vectors.
    """

    def __init__(
        self,
        estimator: Any,
        module_of: Callable[[Sequence[Job], Sequence[Tensor]], nn.Module],
    ) -> None:
        self.estimator = estimator
        self.module_of = module_of
        # Whoever trains may do so in another thread, where scikit-learn is configured otherwise.
        self.config = get_config()
        self.context: Any = None
        self.data: dict[str, Any] = {}
        self.scorers: Sequence[ValidationScorer] = ()
        self.epoch = 0
        # Callbacks hear of each epoch once, whether or not training has to start again.
        self.begins: list[Answer] = []
        self.ends: list[Answer] = []
        # The last epoch of each network: some may stop before others.
        self.last_epochs: dict[int, Epoch] = {}

    def set_callback_context(self, context: Any, data: dict[str, Any]) -> None:
        """Make each epoch a task of a callback context, and show callbacks X, y and metadata."""
        self.context, self.data = context, data

    def set_scorers(self, scorers: Sequence[ValidationScorer]) -> None:
        """Score each network of the fit by its own scorer."""
        self.scorers, self.scores = scorers, True

    def on_restart(self) -> None:
        self.epoch = 0

    def on_epoch_begin(self) -> None:
        self.epoch += 1
        if self.epoch > len(self.begins):
            self.begins.append(Answer.of(self._begin))
        self.begins[self.epoch - 1].heeded()

    def _begin(self) -> None:
        if self.context is not None:
            self.epoch_context = self.context.subcontext(task_name="epoch")
            with config_context(**self.config):
                self.epoch_context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, epochs: list[Epoch]) -> bool:
        if self.epoch > len(self.ends):
            self.ends.append(Answer.of(lambda: self._end(epochs)))
        return self.ends[self.epoch - 1].heeded()

    def _end(self, epochs: list[Epoch]) -> bool:
        if self.estimator.verbose and len(epochs[0].history) % int(self.estimator.verbose) == 0:
            self._print([epoch.history[-1] for epoch in epochs])
        if self.context is None:
            return False
        self.last_epochs |= {epoch.job.member: epoch for epoch in epochs}
        with config_context(**self.config):
            return self.epoch_context.call_on_fit_task_end(
                estimator=self.estimator,
                reconstruction_attributes=lambda: {"network_": self._network()},
                **self.data,
            )

    def _network(self) -> nn.Module:
        epochs = [self.last_epochs[member] for member in sorted(self.last_epochs)]
        return self.module_of([epoch.job for epoch in epochs], [epoch.snapshot() for epoch in epochs])

    def score(self, job: Job, output: NDArray, snapshot: Callable[[], Tensor]) -> float:
        scorer = self.scorers[job.member]
        view = copy.copy(self.estimator)
        view.network_ = self.module_of([job], [snapshot()])
        scorer.show_outputs(view, output)
        with config_context(**self.config):
            return scorer(view)

    def _print(self, records: list[EpochRecord]) -> None:
        def mean(name: str) -> float:
            return sum(getattr(record, name) for record in records) / len(records)

        line = f"{type(self.estimator).__name__} epoch {records[0].epoch}: loss {mean('loss'):.6g}"
        if not math.isnan(records[0].validation_loss):
            line += f", validation loss {mean('validation_loss'):.6g}, score {mean('validation_score'):.6g}"
        print(f"{line}, {records[0].seconds:.2f} s")
