"""What every estimator that trains networks does, whatever it trains them for: plan, settings, members, results."""

from __future__ import annotations

import math
import sys
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from skdl.engine.device import resolve_device
from skdl.engine.dispatch import submit
from skdl.engine.job import Job, Monitor, OptimizerKind, Plan, Result, Samples, Settings, State, history_table
from skdl.engine.optimizers import RULES
from skdl.engine.run import untrained
from skdl.engine.schedules import Schedule
from skdl.estimators.parameters import TrainingParameters, is_auto
from skdl.nn.network import Architecture, Ensemble, NetworkModule
from skdl.tasks.losses import Loss

#: "auto" patience: a training ends after ``min(first, best + second)`` epochs without an improvement, where ``best`` is
#: the number of the best epoch. On 141 tables, which have numbers of their own now, the second took a third of the
#: epochs off classification and a fifth off regression, and added less than 0.1 % to the best validation losses.
AUTO_PATIENCE = 20, 6
#: Learning rates above this are taken for it: they diverge as well, and torch could not convert them.
MAX_LEARNING_RATE = 1e30
#: Batches of more rows than this are taken for it: they hold all rows as well, and torch could not convert the number.
MAX_BATCH_SIZE = 2**31 - 1


class TrainedEstimator(TrainingParameters, metaclass=ABCMeta):
    """Base of all estimators that have networks: :attr:`network_`, its history, and the way there."""

    network_: Any
    dropout: Any
    _fold_state: Any

    # --- what an estimator says --------------------------------------------------------------------------------

    @abstractmethod
    def _architecture(self) -> Architecture:
        """The architecture of the networks to train, by what was learned of the data."""

    @abstractmethod
    def _loss(self) -> Loss:
        """The loss that training minimises."""

    def _dropout(self) -> float:
        """Share of the units that a training step leaves out."""
        return self.dropout

    # --- "auto": an estimator says in _auto_<parameter> what it is ----------------------------------------------

    @abstractmethod
    def _auto_batch_size(self, n_rows: int, /) -> int:
        """Rows of a step by the number of training rows."""

    def _batch_size(self, n_rows: int) -> int:
        if is_auto(self.batch_size):
            return self._auto_batch_size(n_rows)
        # Torch splits by Python's own integers alone, and a search may draw numpy's.
        return min(int(self.batch_size), MAX_BATCH_SIZE)

    @abstractmethod
    def _auto_max_epochs(self, n_rows: int, stops: bool, /) -> int:
        """Passes over so many rows, with or without early stopping."""

    def _most_epochs(self, n_rows: int, stops: bool) -> int:
        return self._auto_max_epochs(n_rows, stops) if is_auto(self.max_epochs) else self.max_epochs

    @abstractmethod
    def _auto_early_stopping(self, n_rows: int, has_validation: bool, /) -> bool:
        """Whether to stop early with so many rows, or validation rows of the caller's own."""

    def _validates(self, n_rows: int, has_validation: bool = False) -> bool:
        """Whether networks are validated as they train, on rows that they hold out or on the caller's own."""
        if is_auto(self.early_stopping):
            return self._auto_early_stopping(n_rows, has_validation)
        return bool(self.early_stopping)

    @abstractmethod
    def _auto_n_members(self, n_rows: int, holds_out: bool, /) -> int:
        """Networks of an ensemble for so many rows, with or without rows that each of them holds out."""

    def _n_members(self, n_rows: int, holds_out: bool) -> int:
        if not is_auto(self.n_members):
            return self.n_members
        return len(self._optimizer_states) if self._continues() else self._auto_n_members(n_rows, holds_out)

    def _auto_patience(self) -> tuple[int, int]:
        """Most epochs without an improvement, and by how many they are more than those up to the best one."""
        return AUTO_PATIENCE

    def _auto_tol(self) -> float:
        """By how much a score must be better under early stopping."""
        return 0.0

    # --- training ------------------------------------------------------------------------------------------------

    def _continues(self) -> bool:
        return bool(self.warm_start) and hasattr(self, "network_")

    def _torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _numpy_dtype(self) -> np.dtype:
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)

    def _check_scoring(self) -> Callable[..., float]:
        from sklearn.metrics import check_scoring

        return check_scoring(self, scoring=self.scoring)

    def _settings(
        self, samples: Samples, *, stops: bool, epochs: int | None = None, schedule: Schedule | None = None
    ) -> Settings:
        if epochs is None:
            epochs = self._most_epochs(len(samples), stops)
        patience, over_best = self.n_iter_no_change, None
        if is_auto(patience):
            patience, over_best = self._auto_patience()
        return Settings(
            learning_rate=min(self.learning_rate, MAX_LEARNING_RATE),
            schedule=schedule or Schedule(self.lr_schedule, self.lr_warmup),
            momentum=self.momentum,
            l1=self.l1,
            l2=self.l2,
            weight_decay=self.weight_decay,
            dropout=self._dropout(),
            gradient_clip=self.gradient_clip,
            loss_settings=self._loss_settings(),
            max_epochs=epochs,
            n_iter_no_change=patience if stops else None,
            patience_over_best=over_best,
            tol=self._auto_tol() if is_auto(self.tol) else self.tol,
            keep_best=stops,
        )

    def _loss_settings(self) -> dict[str, float]:
        loss = self._loss()
        return {name: self._loss_setting(name) for name in loss.setting_names + loss.training_setting_names}

    def _loss_setting(self, name: str) -> float:
        """A number of the loss, which is the parameter of that name."""
        return float(getattr(self, name))

    def _fold_draws(self, random_state: np.random.RandomState) -> np.random.RandomState:
        """What draws the folds: those of the last fit where this one goes on, for its networks know all other rows."""
        if self._continues() and hasattr(self, "_fold_state"):
            random_state = np.random.RandomState()
            random_state.set_state(self._fold_state)
        self._fold_state = random_state.get_state()
        return random_state

    def _plan(self, samples: Samples) -> Plan:
        device = resolve_device(self.device)
        if self.dtype == "bfloat16" and device == "cpu":
            raise ValueError("dtype='bfloat16' needs a GPU, and this fit runs on the CPU. Use dtype='float32'.")
        return Plan(
            architecture=self._architecture(),
            loss=self._loss(),
            optimizer=OptimizerKind(self.optimizer, self.nesterov and RULES[self.optimizer].has_nesterov),
            batch_size=self._batch_size(len(samples)),
            device=device,
            dtype=self._torch_dtype(),
            matmul_dtype=torch.bfloat16 if self.dtype == "bfloat16" else None,
        )

    def _member_jobs(
        self,
        settings: Settings,
        training: Sequence[Samples],
        seeds: Iterable[int],
        validation: Sequence[Samples | None],
        starts: Sequence[State | None],
        monitor: Monitor,
    ) -> list[Job]:
        """A job for each network of a fit: all of one plan, which the first one's samples decide."""
        plan = self._plan(training[0])
        members = zip(training, seeds, validation, starts, strict=True)
        return [
            Job(
                plan,
                settings,
                train=samples,
                seed=int(seed),
                validation=held_out,
                start=start,
                monitor=monitor,
                member=m,
            )
            for m, (samples, seed, held_out, start) in enumerate(members)
        ]

    # Parameters of a caller's inference mode could not be trained on or explained.
    @torch.inference_mode(False)
    def _module(self, jobs: Sequence[Job], thetas: Sequence[torch.Tensor]) -> NetworkModule | Ensemble:
        """The network of a job with these parameters, or the ensemble of several."""
        modules = [
            job.plan.architecture.module(job.for_unscaled_inputs(theta_P), self._dropout())
            for job, theta_P in zip(jobs, thetas, strict=True)
        ]
        return modules[0] if len(modules) == 1 else Ensemble(modules).eval()

    def _members(self) -> list[NetworkModule]:
        network = self.network_
        return [*network.members] if isinstance(network, Ensemble) else [network]

    def _states(self, n_members: int) -> list[State]:
        """Parameters and optimiser states to go on from."""
        architecture = self._architecture()
        try:
            thetas = [module.to_vector(architecture).to(self._torch_dtype()) for module in self._members()]
        except LookupError:
            thetas = []
        if thetas and len(thetas) != n_members:
            raise ValueError(
                f"warm_start continues with {len(thetas)} network(s), but n_members={n_members}. "
                "Set warm_start=False, or restore n_members."
            )
        if not thetas or len(thetas[0]) != architecture.n_parameters:
            raise ValueError(
                "The architecture was changed since the last fit, so training cannot continue from there. "
                "Restore the previous architecture parameters, or call fit with warm_start=False."
            )
        states = []
        for theta_P, (moments, n_steps) in zip(thetas, self._optimizer_states, strict=True):
            fits = (
                RULES[self._optimizer_name] is RULES[self.optimizer]
                and moments
                and moments[0].dtype == self._numpy_dtype()
            )
            states.append(State(theta_P, list(map(torch.tensor, moments)), n_steps) if fits else State(theta_P))
        return states

    def _run(self, jobs: list[Job], *, is_part: bool = False, is_interrupted: bool = False) -> list[Result]:
        """Train, if not interrupted, and set what a fit or a part of one leaves behind; the results of all jobs."""
        results = untrained(jobs) if is_interrupted else submit(jobs)
        for result in results:
            if result.error is not None:
                raise result.error
        results = self._finished(jobs, results)
        self._report(results)
        # Networks that were interrupted before the end of their first epoch have learned nothing.
        places = [i for i, result in enumerate(results) if result.history] or range(len(jobs))
        self._keep([jobs[i] for i in places], [results[i] for i in places], is_part)
        return results

    def _finished(self, jobs: list[Job], results: list[Result]) -> list[Result]:
        """The results with what is done to networks after their training, here nothing."""
        return results

    def _keep(self, jobs: list[Job], results: list[Result], is_part: bool) -> None:
        """Set what the networks of these jobs leave behind."""
        self.network_ = self._module(jobs, [result.state.theta_P for result in results])
        self._optimizer_states = [
            (
                [moment.numpy() for moment in result.state.moments] if is_part or self.warm_start else [],
                result.state.n_steps,
            )
            for result in results
        ]
        self._optimizer_name = self.optimizer
        self.t_ += sum(len(result.history) * len(job.train) for result, job in zip(results, jobs, strict=True))
        self.n_layers_ = self._members()[0].n_layers
        before = self.history_ if is_part and hasattr(self, "history_") else None
        self._set_history(results, before, is_validated=jobs[0].validation is not None)

    def _set_history(
        self, results: list[Result], before: NDArray[np.void] | None = None, *, is_validated: bool
    ) -> None:
        self.history_ = history_table(results)
        if before is not None:
            self.history_["epoch"] += len(before)
            self.history_ = np.concatenate([before, self.history_])
        self.n_iter_ = len(self.history_)
        self.loss_curve_ = self.history_["loss"].tolist()
        kept = [result.history[max(result.best_epoch - 1, 0)].loss for result in results if result.history]
        self.loss_ = float(np.mean(kept)) if kept else math.nan
        # Some calls may have had validation rows, and others not.
        ever_validated = is_validated or not np.isnan(self.history_["validation_loss"]).all()
        self.validation_scores_ = self.history_["validation_score"].tolist() if ever_validated else None
        self.best_validation_score_ = _best_score(results) if is_validated else None
        self.best_loss_ = None if ever_validated else min(self.loss_curve_, default=math.nan)
        self.out_of_fold_: Any = None

    def _report(self, results: list[Result]) -> None:
        """Say what went otherwise than planned."""
        remedy = f"Lower learning_rate (it is {self.learning_rate:g}), set gradient_clip, or scale features and target."
        diverged = [result for result in results if result.reason == "diverged"]
        if diverged:
            worst = min(diverged, key=lambda result: result.best_epoch)
            what = f"Training diverged: the loss is not finite in epoch {len(worst.history)}."
            if worst.best_epoch == 0:
                raise ValueError(f"{what} {remedy}")
            warnings.warn(
                f"{what} The parameters of epoch {worst.best_epoch} are kept. {remedy}",
                ConvergenceWarning,
                stacklevel=caller_level(),
            )
        for result in results:
            scores = [record.validation_score for record in result.history]
            if result.validation_outputs is not None and all(math.isnan(score) for score in scores):
                warnings.warn(
                    "The validation score of a network is NaN in every epoch, and the epoch with the smallest "
                    f"validation loss is kept: epoch {result.best_epoch}. Hold out more rows, or choose another "
                    "scoring.",
                    UserWarning,
                    stacklevel=caller_level(),
                )
                break
        if any(result.reason == "interrupted" for result in results):
            n_epochs = max(len(result.history) for result in results)
            is_trained = any(result.state.n_steps > 0 for result in results)
            kept = "The best parameters so far are kept." if is_trained else "The network is untrained."
            warnings.warn(
                f"Training was interrupted after {n_epochs} epochs. {kept}",
                UserWarning,
                stacklevel=caller_level(),
            )


def _best_score(results: list[Result]) -> float:
    """The best validation score of a network, the mean of those of several: each has held out other rows."""
    scores = [[record.validation_score for record in result.history] for result in results]
    best = [np.nanmax(of_one) for of_one in scores if not np.isnan(of_one).all()]
    return float(np.mean(best)) if best else math.nan


def caller_level() -> int:
    """The ``stacklevel`` at which a warning points at whoever called skdl, scikit-learn in between or not."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("skdl", "sklearn"):
        frame, level = frame.f_back, level + 1
    return level


def warn_of_numbers_as_text(names: Sequence[Any]) -> None:
    """Say which columns of text seem to hold numbers."""
    for name in names:
        warnings.warn(
            f"Column {name!r} is taken as categories, but most of its cells are numbers. Convert it: "
            "pandas.to_numeric(column, errors='coerce'), .cast(polars.Float64, strict=False), or a categorical type if "
            "categories are meant.",
            UserWarning,
            stacklevel=caller_level(),
        )
