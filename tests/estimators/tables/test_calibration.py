"""Temperature and shift of several networks, by the rows that they held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from sklearn.datasets import make_classification, make_multilabel_classification

from skdl import MLPClassifier, MLPRegressor
from skdl.data.table import DenseTable
from skdl.engine.job import Job, OptimizerKind, Plan, Result, Samples, Settings, State
from skdl.engine.predict import network_outputs
from skdl.estimators.tables.calibration import SHIFT_PRIOR, Calibration
from skdl.nn.activations import get_activation
from skdl.nn.dense import DenseArchitecture
from skdl.tasks.losses import BinaryCrossEntropy, CrossEntropy

N_ROWS, N_COLUMNS = 400, 3


def trained(loss, n_outputs, *, sureness, hidden=(), weighted=False, seed=0):
    """Two jobs and their results: networks whose logits are so many times those that labels are drawn by."""
    generator = torch.Generator().manual_seed(seed)
    network = DenseArchitecture(N_COLUMNS, n_outputs, hidden, get_activation("relu"), None)
    plan = Plan(network, loss, OptimizerKind(), 32, dtype=torch.float64)
    jobs, results = [], []
    for _ in range(2):
        theta_P = 3 * torch.randn(network.n_parameters, generator=generator, dtype=torch.float64)
        table = DenseTable(torch.randn(N_ROWS, N_COLUMNS, generator=generator, dtype=torch.float64))
        true = network_outputs(network.module(theta_P), table, "cpu")
        true = torch.from_numpy(np.asarray(true, dtype=np.float64))
        if isinstance(loss, CrossEntropy):
            target = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
        else:
            target = torch.bernoulli(true.sigmoid(), generator=generator)
        weight = torch.rand(N_ROWS, generator=generator) if weighted else None
        samples = Samples(table, target, weight)
        state = State(network.with_outputs_scaled(theta_P, sureness))
        jobs.append(Job(plan, Settings(), samples, 0, validation=samples))
        results.append(Result(state, [], "early_stopping", 1, validation_outputs=sureness * true))
    return jobs, results


def best_factor(jobs, results):
    """The factor of the smallest loss on the held-out rows, by plain search."""

    def loss(factor):
        total = 0.0
        for job, result in zip(jobs, results, strict=True):
            z, target = factor * result.validation_outputs, job.validation.target
            if target.is_floating_point():
                rows = torch.nn.functional.binary_cross_entropy_with_logits(z, target, reduction="none").sum(1)
            else:
                rows = torch.nn.functional.cross_entropy(z, target, reduction="none")
            total += float(rows.sum() if job.validation.weight is None else (rows * job.validation.weight).sum())
        return total

    return minimize_scalar(loss, bounds=(0.01, 1), method="bounded", options={"xatol": 1e-10}).x


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "n_outputs"), [(CrossEntropy(), 3), (BinaryCrossEntropy(), 1), (BinaryCrossEntropy(), 3)]
)
def test_factor__when_networks_are_too_sure__then_root_of_the_best_one(loss, n_outputs, weighted):
    jobs, results = trained(loss, n_outputs, sureness=4.0, weighted=weighted)
    expected = best_factor(jobs, results) ** 0.5
    # Labels were drawn by a quarter of the logits.
    assert 0.4 < expected < 0.6
    assert Calibration.of(jobs, results).factor == pytest.approx(expected, rel=1e-4)


def test_factor__when_logits_are_many__then_some_of_them_say(monkeypatch):
    given = trained(BinaryCrossEntropy(), 1, sureness=4.0, weighted=True)
    of_all = Calibration.of(*given).factor
    monkeypatch.setattr("skdl.estimators.tables.calibration.MAX_LOGITS", N_ROWS // 2)
    assert of_all == pytest.approx(Calibration.of(*given).factor, rel=0.1)
    assert of_all != pytest.approx(Calibration.of(*given).factor, rel=1e-4)


def test_factor__when_networks_are_not_sure_enough__then_one():
    assert Calibration.of(*trained(CrossEntropy(), 3, sureness=0.3)).factor == 1


def test_factor__when_networks_are_sure_of_what_is_wrong__then_bounded():
    assert Calibration.of(*trained(CrossEntropy(), 3, sureness=-50.0)).factor == pytest.approx(0.1)


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_applied__then_to_the_network_and_its_validation_outputs_and_can_be_undone(hidden):
    (job, _), (result, _) = trained(CrossEntropy(), 3, sureness=1.0, hidden=hidden)
    calibration = Calibration(0.25, (1.0, 0.0, -2.0))
    after = calibration.applied(job, result)
    assert_allclose(after.validation_outputs, result.validation_outputs / 4 + torch.tensor(calibration.shift))
    architecture = job.plan.architecture
    module = architecture.module(after.state.theta_P)
    assert_allclose(network_outputs(module, job.train.table, "cpu"), after.validation_outputs, rtol=1e-9, atol=1e-9)
    assert_allclose(calibration.undone(architecture, after.state).theta_P, result.state.theta_P, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "n_outputs"), [(CrossEntropy(), 3), (BinaryCrossEntropy(), 1), (BinaryCrossEntropy(), 3)]
)
def test_shift__then_mean_probabilities_are_those_of_the_labels_but_for_the_prior(loss, n_outputs, weighted):
    jobs, results = trained(loss, n_outputs, sureness=4.0, weighted=weighted)
    # Networks that say too little of the first output.
    of_first = torch.tensor([3.0, *[0.0] * (n_outputs - 1)])
    results = [replace(result, validation_outputs=result.validation_outputs - of_first) for result in results]
    calibration = Calibration.of(jobs, results)
    pull = torch.zeros(n_outputs)
    for job, result in zip(jobs, results, strict=True):
        outputs, target = calibration.applied(job, result).validation_outputs, job.validation.target
        p = outputs.sigmoid() if target.is_floating_point() else outputs.softmax(1)
        labels = target if target.is_floating_point() else torch.nn.functional.one_hot(target, n_outputs)
        weight = 1 if job.validation.weight is None else job.validation.weight[:, None]
        pull = pull + (weight * (labels - p)).sum(0)
    assert_allclose(pull, SHIFT_PRIOR * np.array(calibration.shift), atol=1e-6)
    assert calibration.shift[0] > 0.2


def test_shift__when_a_class_is_in_no_held_out_row__then_it_keeps_a_probability():
    jobs, results = trained(CrossEntropy(), 3, sureness=1.0)
    for job in jobs:
        job.validation.target[job.validation.target == 2] = 0
    assert -20 < Calibration.of(jobs, results).shift[2] < -1


def test_fit__when_a_class_is_rare__then_mean_probability_is_its_share():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 5))
    y = rng.random(3000) < 0.01 * np.exp(0.5 * X[:, 0])
    model = MLPClassifier(random_state=0).fit(X, y)
    assert model.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), rel=0.2)
    assert model.out_of_fold_[:, 1].mean() == pytest.approx(y.mean(), rel=0.1)


NOISY = make_classification(200, 8, flip_y=0.6, random_state=0)
TOO_SURE = {"n_members": 4, "max_epochs": 30, "n_iter_no_change": 30, "learning_rate": 0.02, "random_state": 0}


@pytest.mark.parametrize("has_validation", [False, True])
@pytest.mark.parametrize(
    ("settings", "is_calibrated"),
    [({}, True), ({"n_members": 1}, False), ({"loss": "focal"}, False), ({"early_stopping": False}, False)],
)
def test_fit__when_labels_are_noise__then_several_networks_of_cross_entropy_that_stop_are_calibrated(
    monkeypatch, settings, is_calibrated, has_validation
):
    X, y = NOISY
    validation = {"X_val": X[150:], "y_val": y[150:]} if has_validation else {}
    model = MLPClassifier(**TOO_SURE | settings).fit(X[:150], y[:150], **validation)
    monkeypatch.setattr("skdl.estimators.tables.calibration.MEAN_POWER", 0.0)
    plain = MLPClassifier(**TOO_SURE | settings).fit(X[:150], y[:150], **validation)
    odds, plain_odds = (np.diff(m.predict_log_proba(X), axis=1) for m in (model, plain))
    if is_calibrated:
        assert np.abs(odds).mean() < 0.95 * np.abs(plain_odds).mean()
    else:
        assert_allclose(odds, plain_odds)


STANDS_STILL = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1}


@pytest.mark.parametrize("go_on", ["fit", "fit without early stopping", "partial_fit"])
def test_going_on__when_nothing_is_learned__then_probabilities_stay(go_on):
    X, y = NOISY
    model = MLPClassifier(**TOO_SURE, warm_start=True).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(**STANDS_STILL, early_stopping="auto" if go_on == "fit" else False)
    for _ in range(3):
        getattr(model, "partial_fit" if go_on == "partial_fit" else "fit")(X, y)
        assert_allclose(model.predict_proba(X), before, rtol=1e-4)


def test_fit__when_not_going_on__then_temperature_is_of_this_fit_alone():
    X, y = NOISY
    settings = TOO_SURE | {"early_stopping": False, "max_epochs": 3}
    model = MLPClassifier(**TOO_SURE).fit(X, y).set_params(**settings).fit(X, y)
    assert_allclose(model.predict_proba(X), MLPClassifier(**settings).fit(X, y).predict_proba(X))


def test_fit__then_out_of_fold_probabilities_are_those_of_the_networks():
    X, y = make_multilabel_classification(120, 6, n_classes=3, random_state=0)
    model = MLPClassifier(n_members=3, max_epochs=20, n_iter_no_change=20, random_state=0).fit(X, y)
    table = model._encoder.transform(model._check_X(X, reset=False))
    of_members = [1 / (1 + np.exp(-network_outputs(m, table, "cpu"))) for m in model.network_.members]
    assert_allclose(np.min([np.abs(p - model.out_of_fold_).max(1) for p in of_members], axis=0), 0, atol=1e-5)


def test_fit__when_regression__then_predictions_are_the_mean_of_the_networks():
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = MLPRegressor(n_members=2, max_epochs=3, random_state=0).fit(X, X[:, 0])
    table = model._encoder.transform(model._check_X(X, reset=False))
    of_members = [model._task.decode(network_outputs(m, table).astype(float)) for m in model.network_.members]
    assert_allclose(model.predict(X), np.mean(of_members, axis=0), rtol=1e-5)
