"""Temperatures of several networks, by the rows that they held out."""

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
from skdl.estimators.tables.calibration import calibrated
from skdl.nn.activations import get_activation
from skdl.nn.dense import DenseNetwork
from skdl.tasks.losses import BinaryCrossEntropy, CrossEntropy

N_ROWS, N_COLUMNS = 400, 3


def trained(loss, n_outputs, *, sureness, hidden=(), weighted=False, seed=0):
    """Two jobs and their results: networks whose logits are so many times those that labels are drawn by."""
    generator = torch.Generator().manual_seed(seed)
    network = DenseNetwork(N_COLUMNS, n_outputs, hidden, get_activation("relu"), None)
    plan = Plan(network, loss, OptimizerKind(), 32, dtype=torch.float64)
    jobs, results = [], []
    for _ in range(2):
        theta_P = 3 * torch.randn(network.n_numbers, generator=generator, dtype=torch.float64)
        table = DenseTable(torch.randn(N_ROWS, N_COLUMNS, generator=generator, dtype=torch.float64))
        true = network_outputs(network.module(theta_P), table, "cpu")
        true = torch.from_numpy(np.asarray(true, dtype=np.float64))
        if isinstance(loss, CrossEntropy):
            target = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
        else:
            target = torch.bernoulli(true.sigmoid(), generator=generator)
        weight = torch.rand(N_ROWS, generator=generator) if weighted else None
        samples = Samples(table, target, weight)
        state = State(network.with_outputs_times(theta_P, sureness))
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


@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "n_outputs"), [(CrossEntropy(), 3), (BinaryCrossEntropy(), 1), (BinaryCrossEntropy(), 3)]
)
def test_calibrated__when_networks_are_too_sure__then_logits_divided_by_the_root_of_the_temperature(
    loss, n_outputs, weighted, hidden
):
    jobs, results = trained(loss, n_outputs, sureness=4.0, weighted=weighted, hidden=hidden)
    factor = best_factor(jobs, results) ** 0.5
    # Labels were drawn by a quarter of the logits.
    assert 0.4 < factor < 0.6
    for job, before, after in zip(jobs, results, calibrated(jobs, results), strict=True):
        assert_allclose(after.validation_outputs, factor * before.validation_outputs, rtol=1e-4)
        module = job.plan.network.module(after.state.theta_P)
        assert_allclose(network_outputs(module, job.train.table, "cpu"), after.validation_outputs, rtol=1e-9, atol=1e-9)


def test_calibrated__when_rows_are_many__then_some_of_them_say(monkeypatch):
    jobs, results = trained(BinaryCrossEntropy(), 1, sureness=4.0, weighted=True)
    of_all = calibrated(jobs, results)[0].validation_outputs / results[0].validation_outputs
    monkeypatch.setattr("skdl.estimators.tables.calibration.MOST_LOGITS", N_ROWS // 2)
    of_half = calibrated(jobs, results)[0].validation_outputs / results[0].validation_outputs
    assert_allclose(of_half, of_all, rtol=0.1)
    assert not np.allclose(of_half, of_all, rtol=1e-4)


def test_calibrated__when_networks_are_not_sure_enough__then_left():
    jobs, results = trained(CrossEntropy(), 3, sureness=0.3)
    assert calibrated(jobs, results) is results


def test_calibrated__when_networks_know_nothing_and_are_sure__then_bounded():
    jobs, results = trained(CrossEntropy(), 3, sureness=-50.0)
    for before, after in zip(results, calibrated(jobs, results), strict=True):
        assert_allclose(after.validation_outputs, 0.1 * before.validation_outputs)


@pytest.mark.parametrize(
    ("settings", "is_calibrated"),
    [({}, True), ({"n_members": 1}, False), ({"loss": "focal"}, False), ({"early_stopping": False}, False)],
)
def test_fit__when_labels_are_noise__then_several_networks_of_cross_entropy_are_calibrated(
    monkeypatch, settings, is_calibrated
):
    X, y = make_classification(200, 8, flip_y=0.6, random_state=0)
    kept = {"n_members": 4, "max_epochs": 30, "n_iter_no_change": 30, "learning_rate": 0.02, "random_state": 0}
    model = MLPClassifier(**{**kept, **settings}).fit(X, y)
    monkeypatch.setattr("skdl.estimators.tables.calibration.MEAN_POWER", 0.0)
    plain = MLPClassifier(**{**kept, **settings}).fit(X, y)
    odds, plain_odds = (np.diff(m.predict_log_proba(X), axis=1) for m in (model, plain))
    if is_calibrated:
        assert np.abs(odds).mean() < 0.95 * np.abs(plain_odds).mean()
    else:
        assert_allclose(odds, plain_odds)


def test_fit__then_out_of_fold_probabilities_are_those_of_the_networks():
    X, y = make_multilabel_classification(120, 6, n_classes=3, random_state=0)
    model = MLPClassifier(n_members=3, max_epochs=20, n_iter_no_change=20, random_state=0).fit(X, y)
    table = model._encoder.transform(model._check_X(X, reset=False))
    of_members = [1 / (1 + np.exp(-network_outputs(m, table, "cpu"))) for m in model.network_.members]
    assert_allclose(np.min([np.abs(p - model.out_of_fold_).max(1) for p in of_members], axis=0), 0, atol=1e-5)


def test_fit__when_regression__then_outputs_stay(monkeypatch):
    monkeypatch.setattr("skdl.estimators.tables.mlp.calibrated", None)
    X = np.random.default_rng(0).normal(size=(60, 3))
    assert np.isfinite(MLPRegressor(n_members=2, max_epochs=3, random_state=0).fit(X, X[:, 0]).predict(X)).all()
