"""What an estimator hears from the engine while it trains: callbacks, scorers, printed lines."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from skdl.engine.job import EpochRecord, Monitor


@dataclass
class ValidationScorer:
    """A scikit-learn scorer on fixed validation rows."""

    scorer: Callable[..., float]
    X: Any
    y: NDArray
    sample_weight: NDArray | None

    def __call__(self, estimator: Any) -> float:
        if self.sample_weight is None or not _accepts_weight(self.scorer):
            return float(self.scorer(estimator, self.X, self.y))
        return float(self.scorer(estimator, self.X, self.y, sample_weight=self.sample_weight))


def _accepts_weight(scorer: Callable[..., float]) -> bool:
    accepts = getattr(scorer, "_accept_sample_weight", None)
    return accepts() if accepts is not None else "sample_weight" in inspect.signature(scorer).parameters


class FitMonitor(Monitor):
    """Passes a fit's epochs on to scikit-learn's callbacks, a scorer and the screen.

    Parameters
    ----------
    estimator : estimator
        With all fitted attributes that prediction needs, except ``network_``.
    module_of : callable
        Makes ``network_`` of a row of parameters.
    context : sklearn.callback.CallbackContext, optional
        Of the fit; each epoch is a task of it.
    data : dict
        X, y and metadata as callbacks are shown them.
    scorer : ValidationScorer, optional
    """

    def __init__(
        self,
        estimator: Any,
        module_of: Callable[[Tensor], nn.Module],
        context: Any = None,
        data: dict[str, Any] | None = None,
        scorer: ValidationScorer | None = None,
    ) -> None:
        self.estimator = estimator
        self.module_of = module_of
        self.context = context
        self.data = data or {}
        self.scorer = scorer
        self.scores = scorer is not None

    def on_epoch_begin(self) -> None:
        if self.context is not None:
            self.epoch_context = self.context.subcontext(task_name="epoch")
            self.epoch_context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, snapshot: Callable[[], Tensor], history: list[EpochRecord]) -> bool:
        if self.estimator.verbose and len(history) % int(self.estimator.verbose) == 0:
            self._print(history[-1])
        if self.context is None:
            return False
        return self.epoch_context.call_on_fit_task_end(
            estimator=self.estimator,
            reconstruction_attributes=lambda: {"network_": self.module_of(snapshot())},
            **self.data,
        )

    def score(self, output: NDArray, snapshot: Callable[[], Tensor]) -> float:
        assert self.scorer is not None
        view = copy.copy(self.estimator)
        view.network_ = self.module_of(snapshot())
        # The scorer asks for predictions on rows whose outputs are already known.
        view._known_outputs = (self.scorer.X, output)
        return self.scorer(view)

    def _print(self, record: EpochRecord) -> None:
        line = f"{type(self.estimator).__name__} epoch {record.epoch}: loss {record.loss:.6g}"
        if record.validation_loss == record.validation_loss:
            line += f", validation loss {record.validation_loss:.6g}, score {record.validation_score:.6g}"
        print(f"{line}, {record.seconds:.2f} s")
