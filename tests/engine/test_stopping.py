"""Validation, early stopping, monitors and interrupts."""

import math
import signal
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skdl.engine.batches import DeviceTables
from skdl.engine.evaluation import Evaluation
from skdl.engine.job import Monitor, history_table
from skdl.engine.schedules import Schedule
from skdl.engine.train import train
from skdl.nn.dense import DenseModule
from skdl.tasks import losses

#: More validation rows than the engine looks at in one go.
MANY = 2055


def validated_job(make, plan=None, *, n_validation=11, weight=None, **settings):
    plan = plan or make.plan()
    rows = torch.arange(n_validation)
    validation = make.samples(plan, make.table(plan, n_validation, seed=9), rows, weight)
    return make.job(plan, validation=validation, **settings)


def outputs(job, theta_P):
    x, codes = job.validation.table.take(job.validation.rows)
    return DenseModule.from_vector(job.plan.architecture, theta_P)(x, codes).detach()


# --- validation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_validation", [5, MANY])
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_validation_loss__then_weighted_mean_as_at_prediction_and_without_smoothing(
    make, listener, normalization, n_validation
):
    plan = make.plan(normalization=normalization, dtype=torch.float64)
    monitor = listener()
    job = validated_job(
        make,
        plan,
        n_validation=n_validation,
        weight=torch.linspace(0.1, 2, n_validation),
        monitor=monitor,
        max_epochs=4,
        dropout=0.5,
        loss_settings={"label_smoothing": 0.2},
    )
    (result,) = train([job])
    for record, (theta_P,) in zip(result.history, monitor.snapshots, strict=True):
        loss = F.cross_entropy(outputs(job, theta_P), job.validation.target, reduction="none")
        expected = np.average(loss, weights=job.validation.weight)
        assert record.validation_loss == pytest.approx(expected)
        assert record.validation_score == -record.validation_loss


def test_validation_score__when_score_is_robust__then_of_robust_losses_for_those_jobs_alone(make, listener):
    plan = make.plan(dtype=torch.float64)
    monitor = listener()
    settings = {"weight": torch.linspace(0.1, 2, 11), "max_epochs": 4, "learning_rate": 0.1}
    job = validated_job(make, plan, monitor=monitor, robust_score=True, **settings)
    other = validated_job(make, plan, **settings)
    ours, others = train([job, other])
    for record, (theta_P,) in zip(ours.history, monitor.snapshots, strict=True):
        p = outputs(job, theta_P).softmax(1).gather(1, job.validation.target.unsqueeze(1)).squeeze(1)
        expected = np.average(-((18 * p + 1) / 19).log(), weights=job.validation.weight)
        assert record.validation_score == pytest.approx(-expected)
    assert [record.validation_loss for record in ours.history] == [record.validation_loss for record in others.history]
    assert all(record.validation_score == -record.validation_loss for record in others.history)


@pytest.mark.parametrize(("hidden", "n_rows"), [((8,), 1024), ((1000, 1000), 130), ((10_000,), 64)])
def test_validation__when_the_network_is_wide__then_few_rows_at_a_time(make, hidden, n_rows):
    job = validated_job(make, make.plan(hidden=hidden), n_validation=MANY)
    evaluation = Evaluation([job], DeviceTables("cpu"))
    assert {len(batch.weight_K1B[0, 0]) for batch in evaluation.batches.in_order()} == {n_rows, MANY % n_rows}


def test_score__when_monitors_score__then_each_sees_its_own_outputs_and_parameters(make, listener):
    plan = make.plan(dtype=torch.float64)
    monitors = [listener(scripted=[0.25 * k] * 3) for k in range(3)]
    jobs = [
        validated_job(make, plan, n_validation=n, seed=k, monitor=monitors[k], max_epochs=3)
        for k, n in enumerate((5, MANY, 30))
    ]
    for k, (job, result) in enumerate(zip(jobs, train(jobs), strict=True)):
        assert [record.validation_score for record in result.history] == [0.25 * k] * 3
        for (output, snapshot), (at_end,) in zip(monitors[k].scored, monitors[k].snapshots, strict=True):
            assert torch.equal(snapshot, at_end)
            np.testing.assert_allclose(output, outputs(job, snapshot))


def test_validation__when_only_some_jobs_have_rows__then_the_others_have_no_score(make):
    plan = make.plan()
    jobs = [make.job(plan, max_epochs=2), validated_job(make, plan, max_epochs=2), make.job(plan, max_epochs=2)]
    results = train(jobs)
    for k, result in enumerate(results):
        assert all(math.isnan(record.validation_loss) == (k != 1) for record in result.history)
    assert torch.equal(results[0].state.theta_P, results[2].state.theta_P)


# --- early stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "settings", "expected"),
    [
        ([1, 3, 2, 2, 9], {"n_iter_no_change": 2}, (4, 2, "early_stopping")),
        ([1, 3, 2, 2, 9], {"n_iter_no_change": None}, (5, 5, "max_epochs")),
        ([1, 3, 2, 2, 2], {"n_iter_no_change": None}, (5, 2, "max_epochs")),
        ([1, 3, 2, 2, 2], {"n_iter_no_change": 2, "keep_best": False}, (4, 4, "early_stopping")),
        ([1, 3, 2, 2, 2], {"n_iter_no_change": None, "keep_best": False}, (5, 5, "max_epochs")),
        # Too small an improvement does not count for patience, yet is kept.
        ([1, 1.5, 1.9, 9, 9], {"n_iter_no_change": 2, "tol": 1.0}, (3, 3, "early_stopping")),
        ([1, 1.5, 2.5, 2.6, 9], {"n_iter_no_change": 2, "tol": 1.0}, (5, 5, "max_epochs")),
        ([-5, -3, -4, -2, -1], {"n_iter_no_change": 9}, (5, 5, "max_epochs")),
        ([1, 3, math.nan, 2, 2], {"n_iter_no_change": None}, (5, 2, "max_epochs")),
        ([math.nan, 3, 2, 2, 2], {"n_iter_no_change": None}, (5, 2, "max_epochs")),
        ([1, 3, math.nan, math.nan, 9], {"n_iter_no_change": 2}, (4, 2, "early_stopping")),
        # Soon after an early best epoch, later after a later one, and never beyond the limit.
        ([3, 2, 2, 9, 9], {"n_iter_no_change": 9, "patience_over_best": 1}, (3, 1, "early_stopping")),
        ([1, 3, 2, 2, 9], {"n_iter_no_change": 9, "patience_over_best": 1}, (5, 5, "max_epochs")),
        ([1, 2, 3, 2, 9], {"n_iter_no_change": 1, "patience_over_best": 1}, (4, 3, "early_stopping")),
        ([3, 2, 2, 2, 9], {"n_iter_no_change": None, "patience_over_best": 1}, (5, 5, "max_epochs")),
    ],
    ids=str,
)
def test_early_stopping__when_scores_are_given__then_epochs_best_and_reason(make, listener, scores, settings, expected):
    monitor = listener(scripted=scores)
    (result,) = train([validated_job(make, monitor=monitor, max_epochs=5, **settings)])
    assert (len(result.history), result.best_epoch, result.reason) == expected
    assert torch.equal(result.state.theta_P, monitor.snapshots[result.best_epoch - 1][0])


@pytest.mark.parametrize("learning_rate", [1e-3, 3.0])
def test_early_stopping__when_scores_are_equal__then_the_smaller_loss_is_better(make, listener, learning_rate):
    monitor = listener(scripted=[1, 2, 2, 2, 2, 2, 2, 2])
    settings = {"learning_rate": learning_rate, "max_epochs": 8, "n_iter_no_change": 3}
    (result,) = train([validated_job(make, monitor=monitor, **settings)])
    losses = [record.validation_loss for record in result.history]
    assert result.best_epoch == 2 + np.argmin(losses[1:])
    assert result.reason == ("max_epochs" if learning_rate == 1e-3 else "early_stopping")


def test_early_stopping__when_one_of_a_stack_stops__then_the_others_go_on(make, listener):
    plan = make.plan(dtype=torch.float64)

    def jobs():
        return [
            validated_job(
                make,
                plan,
                seed=k,
                n_iter_no_change=2,
                max_epochs=6,
                monitor=listener(scripted=[*range(best), *[-1] * (6 - best)]),
            )
            for k, best in enumerate((1, 6, 3))
        ]

    results = train(jobs())
    assert [len(result.history) for result in results] == [3, 6, 5]
    assert [result.best_epoch for result in results] == [1, 6, 3]
    for job, result in zip(jobs(), results, strict=True):
        (lone,) = train([job])
        torch.testing.assert_close(result.state.theta_P, lone.state.theta_P, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "factors"),
    [
        ([5, *[1] * 9], [1] * 6 + [0.5] * 4),
        (range(10), [1] * 10),
        # Without scores the training loss counts, which falls in every epoch here.
        (None, [1] * 10),
    ],
    ids=["flat", "rising", "training_loss"],
)
def test_plateau__then_learning_rate_follows_the_validation_score(make, listener, scores, factors):
    plan = make.plan(batch_size=40)
    monitor = listener(scripted=scores and list(scores))
    settings = {"monitor": monitor, "max_epochs": 10, "learning_rate": 1e-3, "schedule": Schedule("plateau")}
    (result,) = train([validated_job(make, plan, **settings) if scores else make.job(plan, **settings)])
    assert [record.learning_rate for record in result.history] == pytest.approx([1e-3 * f for f in factors])
    training = np.array([record.loss for record in result.history])
    assert (np.diff(training) < 0).all()


# --- monitors ----------------------------------------------------------------------------------------------------


def test_monitor__then_hears_each_epoch_with_a_copy_of_the_parameters(make, listener):
    class Keeper(listener):
        def on_epoch_end(self, epochs):
            self.kept = [*getattr(self, "kept", []), epochs[0].snapshot()]
            return super().on_epoch_end(epochs)

    monitor = Keeper()
    (result,) = train([make.job(monitor=monitor, max_epochs=3)])
    assert monitor.n_epochs == len(monitor.snapshots) == 3
    assert torch.equal(monitor.snapshots[-1][0], result.state.theta_P)
    for kept, (snapshot,) in zip(monitor.kept, monitor.snapshots, strict=True):
        assert torch.equal(kept, snapshot)


def test_monitor__when_it_answers_true__then_its_jobs_stop_and_others_go_on(make, listener):
    plan = make.plan(dtype=torch.float64)
    shared = listener(lambda epochs: len(epochs[0].history) == 2)
    jobs = [make.job(plan, seed=k, max_epochs=5, monitor=shared if k < 2 else None) for k in range(3)]
    results = train(jobs)
    assert [result.reason for result in results] == ["callback", "callback", "max_epochs"]
    assert [len(result.history) for result in results] == [2, 2, 5]
    assert [len(snapshots) for snapshots in shared.snapshots] == [2, 2]
    (expected,) = train([make.job(plan, seed=1, max_epochs=2)])
    torch.testing.assert_close(results[1].state.theta_P, expected.state.theta_P, rtol=1e-10, atol=1e-12)


def test_history_table__when_jobs_end_at_different_epochs__then_means_of_those_that_train(make):
    results = train([make.job(seed=k, max_epochs=2 + k, learning_rate=10.0**-k) for k in (1, 2)])
    table = history_table(results)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    losses = [[record.loss for record in result.history] for result in results]
    np.testing.assert_allclose(table["loss"][:3], np.mean([losses[0], losses[1][:3]], axis=0))
    assert table["loss"][3] == losses[1][3]
    np.testing.assert_allclose(table["learning_rate"], [0.055, 0.055, 0.055, 0.01])
    assert np.isnan(table["validation_loss"]).all()


# --- interrupts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InterruptedLoss(losses.SquaredError):
    """The squared error; the user presses Ctrl-C at a call."""

    at: int = 0
    calls: list = field(default_factory=list, hash=False)

    def gradient(self, output, target, settings):
        self.calls.append(1)
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        return super().gradient(output, target, settings)


class InterruptedMonitor(Monitor):
    """The user presses Ctrl-C when an epoch has begun, has ended or is scored."""

    def __init__(self, where, epoch):
        self.where, self.epoch, self.begun = where, epoch, 0
        self.scores = where == "score"

    def press(self, where):
        if where == self.where and self.begun == self.epoch:
            raise KeyboardInterrupt

    def on_epoch_begin(self):
        self.begun += 1
        self.press("begin")

    def on_epoch_end(self, epochs):
        self.press("end")
        return False

    def score(self, job, output, snapshot):
        self.press("score")
        return float(self.begun)


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_interrupt__when_in_the_loss__then_parameters_of_the_last_whole_epoch(make, n_jobs):
    # 3 steps an epoch: the 8th call is in the third epoch.
    plan = make.plan(InterruptedLoss(at=8))
    results = train([make.job(plan, seed=k, max_epochs=6) for k in range(n_jobs)])
    expected = train([make.job(make.plan(losses.SquaredError()), seed=k, max_epochs=2) for k in range(n_jobs)])
    for result, other in zip(results, expected, strict=True):
        assert (result.reason, result.best_epoch, len(result.history)) == ("interrupted", 2, 2)
        assert torch.equal(result.state.theta_P, other.state.theta_P)


@pytest.mark.parametrize(("where", "n_epochs"), [("begin", 2), ("score", 2), ("end", 3)])
def test_interrupt__when_in_a_monitor__then_parameters_of_the_last_whole_epoch(make, where, n_epochs):
    plan = make.plan()
    jobs = [
        validated_job(make, plan, monitor=InterruptedMonitor(where, 3), max_epochs=6),
        make.job(plan, seed=1, max_epochs=6),
    ]
    expected = train([validated_job(make, plan, max_epochs=n_epochs), make.job(plan, seed=1, max_epochs=n_epochs)])
    for result, other in zip(train(jobs), expected, strict=True):
        assert (result.reason, result.best_epoch, len(result.history)) == ("interrupted", n_epochs, n_epochs)
        assert torch.equal(result.state.theta_P, other.state.theta_P)


def test_interrupt__when_in_the_first_epoch__then_parameters_of_the_moment(make):
    (result,) = train([make.job(make.plan(InterruptedLoss(at=3)), max_epochs=6)])
    (untrained,) = train([make.job(make.plan(losses.SquaredError()), max_epochs=1, learning_rate=0.0)])
    assert (result.reason, result.best_epoch, len(result.history)) == ("interrupted", 0, 0)
    assert result.state.theta_P.isfinite().all()
    assert not torch.equal(result.state.theta_P, untrained.state.theta_P)


def test_interrupt__when_first_epoch_has_gone_wrong__then_first_numbers_come_back(make):
    plan = make.plan(InterruptedLoss(at=3), optimizer="sgd")
    (result,) = train([make.job(plan, max_epochs=6, learning_rate=1e30)])
    assert result.reason == "interrupted"
    assert result.state.theta_P.isfinite().all()


def test_interrupt__when_validated__then_best_parameters_so_far(make, listener):
    class Interrupted(listener):
        def on_epoch_end(self, epochs):
            super().on_epoch_end(epochs)
            if len(epochs[0].history) == 4:
                raise KeyboardInterrupt

    monitor = Interrupted(scripted=[1, 3, 2, 2])
    (result,) = train([validated_job(make, monitor=monitor, max_epochs=6)])
    assert (result.reason, result.best_epoch) == ("interrupted", 2)
    assert torch.equal(result.state.theta_P, monitor.snapshots[1][0])


def test_interrupt__when_some_jobs_had_ended__then_they_keep_their_reason(make):
    plan = make.plan()
    jobs = [make.job(plan, max_epochs=1), make.job(plan, max_epochs=6, monitor=InterruptedMonitor("end", 3))]
    results = train(jobs)
    assert [result.reason for result in results] == ["max_epochs", "interrupted"]
    assert [len(result.history) for result in results] == [1, 3]


def test_interrupt__when_jobs_cannot_stack__then_all_stop(make):
    # Ctrl-C is meant for all that was asked for, not for the one network that happens to train.
    plan = make.plan(losses.CustomLoss(lambda z, t: (z - t).square()))
    monitors = [InterruptedMonitor("end", 2), None, None]
    results = train([make.job(plan, seed=k, max_epochs=6, monitor=monitor) for k, monitor in enumerate(monitors)])
    assert [result.reason for result in results] == ["interrupted"] * 3
    assert [len(result.history) for result in results] == [2, 0, 0]


def test_interrupt__when_stacks_train_in_threads__then_each_ends_with_its_epoch(make):
    other_trains = threading.Event()

    class Announces(Monitor):
        def on_epoch_end(self, epochs):
            other_trains.set()
            return False

    class Presses(Monitor):
        def on_epoch_end(self, epochs):
            if len(epochs[0].history) == 3:
                other_trains.wait(20)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return False

    plans = [make.plan(hidden=(8,)), make.plan(hidden=(9,)), make.plan(hidden=(10,))]
    # A runner of tests may have switched Ctrl-C off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The third one waits for a thread meanwhile.
    monitors = [Presses(), Announces(), None]
    jobs = [
        make.job(plan, seed=k, max_epochs=20_000, monitor=monitor)
        for k, (plan, monitor) in enumerate(zip(plans, monitors, strict=True))
    ]
    results = train(jobs, n_workers=2)
    assert [result.reason for result in results] == ["interrupted"] * 3
    assert [len(result.history) > 0 for result in results] == [True, True, False]
    assert all(result.best_epoch == len(result.history) for result in results)
