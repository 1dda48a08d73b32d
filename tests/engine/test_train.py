"""``train``: stacked equals lone, oracles, and what the surroundings keep."""

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor, Ridge
from torch.nn import functional as F

from skdl.data.table import DenseTable, SparseTable
from skdl.engine.job import Monitor, Samples
from skdl.engine.optimizers import RULES
from skdl.engine.schedules import Schedule
from skdl.engine.train import CancelledError, train, train_stack
from skdl.nn.dense import DenseModule
from skdl.nn.periodic import PeriodicEmbedding
from skdl.tasks import losses

SINGLE, DOUBLE = torch.float32, torch.float64


def distance(theta, other):
    """How far two models are apart, relative to their size."""
    return ((theta - other).norm() / other.norm()).item()


def assert_equal_results(result, other, tolerance):
    assert (result.reason, result.best_epoch, result.state.n_steps) == (
        other.reason,
        other.best_epoch,
        other.state.n_steps,
    )
    assert distance(result.state.theta_P, other.state.theta_P) <= tolerance
    for moment, expected in zip(result.state.moments, other.state.moments, strict=True):
        assert (moment - expected).norm() <= 10 * tolerance * (expected.norm() + 1)
    for column in ("loss", "validation_loss", "validation_score", "learning_rate"):
        np.testing.assert_allclose(
            [getattr(record, column) for record in result.history],
            [getattr(record, column) for record in other.history],
            rtol=100 * tolerance,
            atol=100 * tolerance,
        )


# --- stacked equals lone -----------------------------------------------------------------------------------------

OPTIMIZERS = {name: {"optimizer": name} for name in RULES} | {"nesterov": {"optimizer": "sgd", "nesterov": True}}


def varied_jobs(make, plan, n_jobs):
    """Jobs that differ in all that may differ in a stack."""
    tables = [make.table(plan, n_rows, seed) for seed, n_rows in enumerate((45, 61, 33))]
    schedules = [Schedule(), Schedule("cosine", 0.1), Schedule("plateau"), Schedule("one_cycle")]
    jobs = []
    for k in range(n_jobs):
        table = tables[k % 3]
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(k))
        # Among the lengths are whole batches, one row too many, and fewer rows than a batch.
        n_rows = (32, 31, 17, 9, 33)[k % 5]
        rows = None if k % 4 == 3 else order[:n_rows]
        weight = 0.5 + torch.rand(n_rows, generator=torch.Generator().manual_seed(k)) if k % 4 == 1 else None
        is_validated = k % 3 == 1
        jobs.append(
            make.job(
                plan,
                samples=make.samples(plan, table, rows, weight),
                seed=k // 2,
                validation=make.samples(plan, table, order[-(5 + k) :]) if is_validated else None,
                learning_rate=(1e-2, 3e-3, 1e-3)[k % 3],
                schedule=schedules[k % 4],
                momentum=(0.9, 0.5)[k % 2],
                l1=(0.0, 1e-3, 1e-2)[k % 3],
                l2=(1e-2, 0.0)[k % 2],
                weight_decay=(0.0, 0.0, 1e-2)[k % 3],
                dropout=(0.1, 0.0, 0.5)[k % 3],
                gradient_clip=(None, 0.1, 1.0)[k % 3],
                loss_settings={"label_smoothing": (0.0, 0.1)[k % 2]},
                max_epochs=(20, 20, 7, 13)[k % 4],
                n_iter_no_change=3 if is_validated else None,
            )
        )
    return jobs


@pytest.mark.parametrize(("dtype", "tolerance"), [(SINGLE, 1e-4), (DOUBLE, 1e-10)], ids=["single", "double"])
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_stacked__when_three_jobs_differ_in_everything__then_each_equals_its_lone_run(
    make, optimizer, normalization, dtype, tolerance
):
    check_stacked_equals_lone(make, 3, optimizer, normalization, dtype, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(SINGLE, 1e-4), (DOUBLE, 1e-10)], ids=["single", "double"])
@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_stacked__when_seventeen_jobs_differ_in_everything__then_each_equals_its_lone_run(
    make, optimizer, normalization, dtype, tolerance
):
    check_stacked_equals_lone(make, 17, optimizer, normalization, dtype, tolerance)


def test_stacked__when_there_are_waves__then_each_equals_its_lone_run(make):
    check_stacked_equals_lone(make, 5, {"periodic": PeriodicEmbedding(3, 5)}, None, DOUBLE, 1e-10)


def check_stacked_equals_lone(make, n_jobs, optimizer, normalization, dtype, tolerance):
    plan = make.plan(normalization=normalization, dtype=dtype, embeddings=((4, 2),), **optimizer)
    jobs = varied_jobs(make, plan, n_jobs)
    # One stack, whatever the numbers of rows are.
    together = train_stack(jobs)
    assert len({len(result.history) for result in together}) > 1
    for job, result in zip(jobs, together, strict=True):
        (lone,) = train([job])
        assert_equal_results(result, lone, tolerance)


@pytest.mark.parametrize(
    "loss",
    [
        losses.FocalCrossEntropy(),
        losses.SquaredError(),
        losses.AbsoluteError(),
        losses.Huber(),
        losses.Quantile(),
        losses.Poisson(),
        losses.BinaryCrossEntropy(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_stacked__when_loss_varies__then_each_equals_its_lone_run(make, loss):
    plan = make.plan(loss, dtype=DOUBLE)
    if isinstance(loss, losses.FocalCrossEntropy):
        plan = replace(plan, architecture=replace(plan.architecture, n_outputs=3))
    jobs = varied_jobs(make, plan, 5)
    for k, job in enumerate(jobs):
        job.settings = replace(job.settings, loss_settings={"quantile": (0.1, 0.5, 0.9)[k % 3]})
        for samples in filter(None, (job.train, job.validation)):
            if isinstance(loss, losses.FocalCrossEntropy):
                samples.target = (samples.target[:, 0] > 0).long() + 1
            elif isinstance(loss, losses.Poisson):
                samples.target = samples.target.abs()
            elif isinstance(loss, losses.BinaryCrossEntropy):
                samples.target = (samples.target > 0).to(DOUBLE)
    for job, result in zip(jobs, train(jobs), strict=True):
        (lone,) = train([job])
        assert_equal_results(result, lone, 1e-10)


def test_train__when_plans_differ__then_results_stand_in_the_order_of_the_jobs(make):
    plans = [make.plan(hidden=(4,)), make.plan(hidden=(6,)), make.plan(optimizer="sgd")]
    jobs = [make.job(plans[k % 3], seed=k, max_epochs=2 + k % 2) for k in range(7)]
    for job, result in zip(jobs, train(jobs), strict=True):
        assert len(result.state.theta_P) == job.plan.architecture.n_parameters
        assert len(result.history) == job.settings.max_epochs
        assert_equal_results(result, train([job])[0], 1e-5)


@pytest.mark.parametrize("shares_monitor", [False, True], ids=["fits", "members_of_one_fit"])
def test_train__when_stack_is_impossible__then_each_equals_its_lone_run(make, shares_monitor):
    monitor = Monitor() if shares_monitor else None
    plans = [
        make.plan(losses.CustomLoss(lambda z, t: F.huber_loss(z, t, reduction="none"))),
        make.plan(losses.Huber(), activation=torch.sin),
    ]
    jobs = [make.job(plan, seed=seed, max_epochs=3, monitor=monitor) for plan in plans for seed in (0, 1)]
    for job, result in zip(jobs, train(jobs), strict=True):
        assert_equal_results(result, train([job])[0], 1e-5)


def test_train__when_loss_is_a_users_own__then_as_the_built_in_one(make):
    own = make.plan(losses.CustomLoss(lambda z, t: F.huber_loss(z, t, reduction="none")), dtype=DOUBLE)
    built_in = make.plan(losses.Huber(), dtype=DOUBLE)
    results = [train([make.job(plan, max_epochs=5)])[0] for plan in (own, built_in)]
    assert_equal_results(*results, 1e-12)


def test_train__when_one_fit_fails__then_it_alone_hears_of_it(make, listener):
    def complain(epochs):
        raise LookupError("no such thing")

    plan = make.plan(dtype=DOUBLE)
    narrow = make.samples(plan, make.table(plan))
    narrow.table = DenseTable(narrow.table.values[:, :4])
    jobs = [make.job(plan, seed=k, max_epochs=3) for k in range(5)]
    jobs[1] = make.job(plan, samples=narrow)
    jobs[3] = make.job(plan, monitor=listener(complain), max_epochs=3)
    results = train(jobs)
    assert [result.reason for result in results] == ["max_epochs", "failed", "max_epochs", "failed", "max_epochs"]
    assert isinstance(results[1].error, RuntimeError) and isinstance(results[3].error, LookupError)
    for k in (0, 2, 4):
        assert_equal_results(results[k], train([jobs[k]])[0], 1e-10)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("cut", "widths"),
    [({"max_models": 2}, [1, 2, 2]), ({"max_bytes": 1}, [1] * 5), ({"n_workers": 2}, [2, 3])],
    ids=["max_models", "max_bytes", "n_workers"],
)
def test_train__when_cut_into_stacks__then_each_job_equals_its_lone_run(make, cut, widths):
    reports = []
    jobs = varied_jobs(make, make.plan(dtype=DOUBLE), 5)
    results = train(jobs, on_stack=reports.append, **cut)
    assert sorted(report.n_models for report in reports) == widths
    assert sum(report.n_epochs for report in reports) == sum(len(result.history) for result in results)
    assert torch.get_num_threads() == 2
    for job, result in zip(jobs, results, strict=True):
        assert_equal_results(result, train([job])[0], 1e-10)


@pytest.mark.usefixtures("two_threads")
def test_train__when_cancelled__then_ends_after_the_epoch(make, listener):
    monitor = listener()
    with pytest.raises(CancelledError):
        train([make.job(monitor=monitor)], is_cancelled=lambda: monitor.n_epochs == 3)
    assert len(monitor.snapshots) == 3
    assert torch.get_num_threads() == 2


def test_train__when_no_jobs__then_no_results():
    assert train([]) == []


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_train__when_repeated__then_bit_equal(make, normalization):
    def jobs():
        return varied_jobs(make, make.plan(normalization=normalization), 5)

    for result, again in zip(train(jobs()), train(jobs()), strict=True):
        assert torch.equal(result.state.theta_P, again.state.theta_P)


def test_train__when_tables_lie_elsewhere_in_memory__then_bit_equal(make):
    plan = make.plan()
    tables = sorted((make.table(plan) for _ in range(5)), key=id)

    def results(tables):
        return train(
            [make.job(plan, samples=make.samples(plan, table), seed=k, max_epochs=3) for k, table in enumerate(tables)]
        )

    for result, other in zip(results(tables), results(tables[::-1]), strict=True):
        assert torch.equal(result.state.theta_P, other.state.theta_P)


def test_train__when_seed_differs__then_weights_do(make):
    one, other = train([make.job(seed=seed, max_epochs=1) for seed in (0, 1)])
    assert distance(one.state.theta_P, other.state.theta_P) > 0.1


# --- oracles -----------------------------------------------------------------------------------------------------


def linear_job(make, loss, x, y, **settings):
    """One linear layer on the whole table at once, trained until it rests."""
    optimizer = settings.pop("optimizer", "adamw")
    plan = make.plan(loss, hidden=(), batch_size=len(x), dtype=DOUBLE, n_inputs=x.shape[1], optimizer=optimizer)
    target = torch.from_numpy(y)
    n_outputs = int(target.max()) + 1 if isinstance(loss, losses.CrossEntropy) else 1
    plan = replace(plan, architecture=replace(plan.architecture, n_outputs=n_outputs))
    samples = Samples(DenseTable(torch.from_numpy(x)), target if target.dtype == torch.int64 else target[:, None])
    settings = {"learning_rate": 0.05, "max_epochs": 600, "schedule": Schedule("cosine")} | settings
    return make.job(plan, samples=samples, **settings)


def fitted_layer(job, result):
    (layer,) = DenseModule.from_vector(job.plan.architecture, result.state.theta_P).linear_layers
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6))
    return x, x @ [1.0, -2.0, 0.5, 0, 0, 0.05] + 3 + 0.3 * rng.normal(size=60)


@pytest.mark.parametrize("l2", [1e-6, 0.3])
def test_linear_network__when_squared_error_and_l2__then_ridge(make, regression, l2):
    job = linear_job(make, losses.SquaredError(), *regression, l2=l2)
    weight, bias = fitted_layer(job, *train([job]))
    ridge = Ridge(alpha=l2 * 60).fit(*regression)
    np.testing.assert_allclose(weight[0], ridge.coef_, atol=1e-3)
    np.testing.assert_allclose(bias, ridge.intercept_, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [*({"optimizer": name} for name in RULES), {"optimizer": "sgd", "momentum": 0.0}],
    ids=[*RULES, "sgd_plain"],
)
def test_linear_network__when_squared_error_and_l1__then_lasso_with_its_zeros(make, regression, settings):
    jobs = [linear_job(make, losses.SquaredError(), *regression, l1=l1, **settings) for l1 in (0.02, 0.1, 0.6)]
    for job, result in zip(jobs, train(jobs), strict=True):
        lasso = Lasso(alpha=job.settings.l1, tol=1e-10).fit(*regression)
        weight, bias = fitted_layer(job, result)
        np.testing.assert_allclose(weight[0], lasso.coef_, atol=2e-3)
        np.testing.assert_allclose(bias, lasso.intercept_, atol=2e-3)
        np.testing.assert_array_equal(weight[0] == 0, lasso.coef_ == 0)
        assert (lasso.coef_ == 0).any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_network__when_cross_entropy_and_l2__then_logistic_regression(make, regression, n_classes):
    x, y = regression
    y = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes)).astype(np.int64)
    loss = losses.BinaryCrossEntropy() if n_classes == 2 else losses.CrossEntropy()
    job = linear_job(make, loss, x, y if n_classes > 2 else y.astype(float), l2=0.05)
    weight, bias = fitted_layer(job, *train([job]))
    oracle = LogisticRegression(C=1 / (0.05 * 60), tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(weight, oracle.coef_, atol=1e-3)
    np.testing.assert_allclose(bias - bias.mean() * (n_classes > 2), oracle.intercept_, atol=1e-3)


def test_linear_network__when_poisson_and_l2__then_poisson_regressor(make, regression):
    x, _ = regression
    y = np.random.default_rng(1).poisson(np.exp(0.5 * x[:, 0] + 0.3)).astype(float)
    job = linear_job(make, losses.Poisson(), x, y, l2=0.1)
    weight, bias = fitted_layer(job, *train([job]))
    oracle = PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(weight[0], oracle.coef_, atol=1e-3)
    np.testing.assert_allclose(bias[0], oracle.intercept_, atol=1e-3)


# --- weights and losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", [None, "layer"])
def test_weight__when_two_or_none__then_as_rows_twice_or_left_out(make, normalization):
    plan = make.plan(normalization=normalization, batch_size=100, dtype=DOUBLE)
    table = make.table(plan, 30)
    times = torch.arange(30) % 3
    weight = times.double() / times.double().mean()
    rows = torch.arange(30).repeat_interleave(times)
    jobs = [
        make.job(plan, samples=make.samples(plan, table, weight=weight), max_epochs=20),
        make.job(plan, samples=make.samples(plan, table, rows), max_epochs=20),
    ]
    weighted, repeated = train(jobs)
    assert distance(weighted.state.theta_P, repeated.state.theta_P) < 1e-10
    np.testing.assert_allclose([r.loss for r in weighted.history], [r.loss for r in repeated.history])


@pytest.mark.parametrize("batch_size", [7, 16, 40])
def test_history__when_nothing_is_learned__then_loss_is_the_mean_over_all_rows(make, batch_size):
    plan = make.plan(batch_size=batch_size, dtype=DOUBLE)
    table = make.table(plan)
    weight = torch.linspace(0.5, 1.5, 40)
    samples = make.samples(plan, table, weight=weight)
    (result,) = train([make.job(plan, samples=samples, max_epochs=3, learning_rate=0.0)])
    module = DenseModule.from_vector(plan.architecture, result.state.theta_P)
    expected = (F.cross_entropy(module(table.values), samples.target, reduction="none") * samples.weight).mean()
    assert [record.loss for record in result.history] == pytest.approx([expected.item()] * 3)


@pytest.mark.parametrize("kind", ["constant", "cosine", "one_cycle", "step", "exponential"])
def test_history__when_one_step_an_epoch__then_learning_rate_is_that_of_the_step(make, kind):
    schedule = Schedule(kind, 0.2)
    plan = make.plan(batch_size=40)
    (result,) = train([make.job(plan, max_epochs=10, learning_rate=0.01, schedule=schedule)])
    assert [record.epoch for record in result.history] == list(range(1, 11))
    np.testing.assert_allclose([record.learning_rate for record in result.history], 0.01 * schedule.factors(0, 10, 10))


def test_history__when_several_steps_an_epoch__then_learning_rate_is_that_of_one_of_them(make):
    schedule = Schedule("cosine", 0.3)
    (result,) = train([make.job(make.plan(batch_size=4), max_epochs=5, schedule=schedule, learning_rate=1.0)])
    factors = schedule.factors(0, 50, 50).reshape(5, 10)
    for record, of_epoch in zip(result.history, factors, strict=True):
        assert of_epoch.min() <= record.learning_rate <= of_epoch.max()


def test_table__when_sparse__then_as_dense(make):
    plan = make.plan()
    values = make.table(plan).values.relu()
    tables = [DenseTable(values), SparseTable(sp.csr_array(values.numpy()))]
    results = train([make.job(plan, samples=make.samples(plan, table), max_epochs=5) for table in tables])
    assert_equal_results(*results, 1e-6)


def test_table__when_columns_are_embedded_only__then_trains(make):
    plan = make.plan(n_inputs=0, embeddings=((6, 3), (4, 2)))
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:30]
    jobs = [
        make.job(plan, samples=make.samples(plan, make.table(plan), which), max_epochs=60, learning_rate=1e-2)
        for which in (None, rows)
    ]
    for result in train(jobs):
        assert result.history[-1].loss < 0.5 * result.history[0].loss


def test_batch_norm__when_last_batch_has_one_row__then_statistics_are_those_of_the_rows(make):
    plan = make.plan(normalization="batch", batch_size=16)
    (result,) = train([make.job(plan, n_rows=33, max_epochs=60, learning_rate=0.0)])
    network, theta = plan.architecture, result.state.theta_P
    x = make.table(plan, 33).values
    z = x @ network.slots["weight0"].view(theta)
    running = network.slots["variance0"].view(theta)
    assert (running / z.var(0)).mean().item() == pytest.approx(1, abs=0.2)


# --- padding and neighbours --------------------------------------------------------------------------------------


def outlier_jobs(make, plan, lengths, validation_lengths):
    """Jobs on one table whose row 0, which belongs to none of them, is huge."""
    table = make.table(plan)
    table.values[0] = 1e25
    rows = torch.arange(1, 40)
    return [
        make.job(
            plan,
            samples=make.samples(plan, table, rows[:length]),
            validation=make.samples(plan, table, rows[-n_validation:]) if n_validation else None,
            max_epochs=2,
        )
        for length, n_validation in zip(lengths, validation_lengths, strict=True)
    ]


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize(
    ("lengths", "validation_lengths"), [((30, 21), (0, 0)), ((30, 30), (9, 5))], ids=["training", "validation"]
)
def test_padding__when_a_foreign_row_is_huge__then_it_is_never_seen(make, normalization, lengths, validation_lengths):
    plan = make.plan(losses.SquaredError(), normalization=normalization)
    jobs = outlier_jobs(make, plan, lengths, validation_lengths)
    for job, result in zip(jobs, train(jobs), strict=True):
        (lone,) = train([job])
        assert lone.reason == "max_epochs"
        assert_equal_results(result, lone, 1e-5)


@pytest.mark.parametrize("learning_rate", [1e6, 1e30])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_divergence__when_in_company__then_neighbours_go_their_own_way(make, optimizer, normalization, learning_rate):
    plan = make.plan(losses.SquaredError(), normalization=normalization, **optimizer)
    rates = [1e-3, 1e-2, 1e-3, 3e-3, 1e-3]
    sane = [make.job(plan, seed=k, learning_rate=rate, max_epochs=8) for k, rate in enumerate(rates)]
    wild = list(sane)
    wild[2] = make.job(plan, seed=2, learning_rate=learning_rate, max_epochs=8)
    for k, (result, expected) in enumerate(zip(train(wild), train(sane), strict=True)):
        if k != 2:
            assert_equal_results(result, expected, 1e-5)
    assert train(wild)[2].state.theta_P.isfinite().all()


def test_divergence__when_stack_keeps_its_form__then_neighbours_are_bit_equal(make):
    plan = make.plan(losses.SquaredError(), batch_size=4)
    runs = []
    for rate in (1e30, 1e-3):
        rates = [1e-3, rate, 1e-2]
        runs.append(train([make.job(plan, seed=k, learning_rate=r, max_epochs=1) for k, r in enumerate(rates)]))
    assert runs[0][1].reason == "diverged"
    for k in (0, 2):
        assert torch.equal(runs[0][k].state.theta_P, runs[1][k].state.theta_P)


def test_divergence__when_in_the_first_epoch__then_first_numbers_come_back(make):
    plan = make.plan(losses.SquaredError(), optimizer="sgd")
    (result,) = train([make.job(plan, learning_rate=1e30, max_epochs=8)])
    (untrained,) = train([make.job(plan, learning_rate=0.0, max_epochs=1)])
    assert (result.reason, result.best_epoch, len(result.history)) == ("diverged", 0, 1)
    assert torch.equal(result.state.theta_P, untrained.state.theta_P)


@dataclass(frozen=True)
class ScriptedLoss(losses.SquaredError):
    """The squared error, until something happens at a call."""

    stackable = False

    at: int = 0
    event: object = None
    calls: list = field(default_factory=list, hash=False)

    def loss_gradient(self, output, target, settings):
        self.calls.append(1)
        loss, gradient = super().loss_gradient(output, target, settings)
        return self.event(loss, gradient) if len(self.calls) == self.at else (loss, gradient)


@pytest.mark.parametrize(
    "event",
    [lambda loss, grad: (loss * torch.nan, grad), lambda loss, grad: (loss, grad * torch.inf)],
    ids=["loss", "gradient"],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_divergence__when_after_good_epochs__then_last_good_weights_come_back(make, optimizer, event):
    # 3 steps an epoch: the 8th call is in the third epoch.
    plan = make.plan(ScriptedLoss(at=8, event=event), **optimizer)
    (result,) = train([make.job(plan, max_epochs=8)])
    (expected,) = train([make.job(make.plan(losses.SquaredError(), **optimizer), max_epochs=2)])
    assert (result.reason, result.best_epoch, len(result.history)) == ("diverged", 2, 3)
    assert torch.equal(result.state.theta_P, expected.state.theta_P)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_divergence__when_training_goes_on_afterwards__then_it_can(make, optimizer):
    plan = make.plan(ScriptedLoss(at=8, event=lambda loss, grad: (loss, grad * torch.nan)), **optimizer)
    (diverged,) = train([make.job(plan, max_epochs=8)])
    sane = make.plan(losses.SquaredError(), **optimizer)
    (result,) = train([make.job(sane, start=diverged.state, max_epochs=2)])
    assert result.reason == "max_epochs"
    assert result.state.theta_P.isfinite().all()


# --- resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_resume__when_full_batch__then_two_halves_equal_the_whole(make, optimizer, normalization):
    plan = make.plan(batch_size=40, normalization=normalization, dtype=DOUBLE, **optimizer)

    def job(max_epochs, start=None):
        return make.job(plan, max_epochs=max_epochs, start=start, l1=1e-3, weight_decay=1e-2, learning_rate=1e-2)

    (whole,) = train([job(10)])
    (half,) = train([job(5)])
    kept = [half.state.theta_P.clone(), *(moment.clone() for moment in half.state.moments)]
    (resumed,) = train([job(5, half.state)])
    assert distance(resumed.state.theta_P, whole.state.theta_P) < 1e-10
    for moment, expected in zip(resumed.state.moments, whole.state.moments, strict=True):
        assert distance(moment, expected) < 1e-10
    assert (half.state.n_steps, resumed.state.n_steps) == (5, 10)
    for tensor, before in zip([half.state.theta_P, *half.state.moments], kept, strict=True):
        assert torch.equal(tensor, before)


def test_resume__when_in_a_stack_of_fresh_jobs__then_equals_lone(make):
    plan = make.plan(dtype=DOUBLE)
    (half,) = train([make.job(plan, max_epochs=5)])
    jobs = [make.job(plan, seed=1, max_epochs=5), make.job(plan, start=half.state, max_epochs=5)]
    for job, result in zip(jobs, train(jobs), strict=True):
        assert_equal_results(result, train([job])[0], 1e-10)


# --- surroundings ------------------------------------------------------------------------------------------------


def fail(loss, gradient):
    raise ZeroDivisionError


def interrupt(loss, gradient):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("two_threads")
def test_train__when_small__then_one_thread_inside_and_the_callers_number_after(make, listener):
    seen = []
    monitor = listener(lambda epochs: seen.append(torch.get_num_threads()))
    train([make.job(max_epochs=2, monitor=monitor)])
    assert seen == [1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("event", [fail, interrupt])
def test_train__when_loss_raises__then_threads_and_gradient_mode_come_back(make, event):
    plan = make.plan(ScriptedLoss(at=2, event=event))
    (result,) = train([make.job(plan, max_epochs=2)])
    assert result.reason == ("failed" if event is fail else "interrupted")
    assert isinstance(result.error, ZeroDivisionError) == (event is fail)
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()


def test_train__then_global_random_states_stay(make):
    plan = make.plan(embeddings=((4, 2),), normalization="batch")
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    train([make.job(plan, max_epochs=2, dropout=0.5, seed=k) for k in range(2)])
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_train__when_global_seed_differs__then_result_does_not(make):
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            results.append(train([make.job(max_epochs=2, dropout=0.5)])[0])
    assert torch.equal(results[0].state.theta_P, results[1].state.theta_P)
