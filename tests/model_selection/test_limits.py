"""max_models, max_memory and device; how often a table is stored; what the report says."""

import gc
import pickle
import re
import threading
from itertools import count

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

import skdl
from skdl.data.table import DenseTable
from skdl.model_selection import gathering
from skdl.model_selection.together import parse_bytes

GRID = {"learning_rate": [0.005, 0.01, 0.02, 0.1], "hidden_layer_sizes": [(8,), (4,)]}


@pytest.fixture
def rounds(monkeypatch):
    """The jobs of each training, and what ``look()`` gave at its start."""
    seen = []

    def spy(jobs, **settings):
        seen.append((list(jobs), spy.look()))
        return train(jobs, **settings)

    train = gathering.train
    spy.look = lambda: None
    monkeypatch.setattr(gathering, "train", spy)
    seen_and_look = (seen, spy)
    return seen_and_look


@pytest.mark.parametrize("max_models", [1, 2, 7, 1000])
def test_max_models__then_no_stack_is_wider_and_results_as_without(check, net, data, max_models):
    report = check(lambda: GridSearchCV(net(dropout=0.1), GRID, cv=3).fit(*data), max_models=max_models)

    assert max(stack.n_models for stack in report) <= max_models
    assert sum(stack.n_models for stack in report) == 8 * 3 + 1


def test_max_models__when_less_than_a_fits_members__then_as_without(check, net, data):
    # The members of a fit are not parted.
    report = check(lambda: GridSearchCV(net(n_members=3), {"l1": [0.0, 0.1]}, cv=2).fit(*data), max_models=2)

    assert sum(stack.n_models for stack in report) == 3 * 5


@pytest.mark.parametrize("max_memory", ["1KB", 1, "20 kB", "1GB"])
def test_max_memory__then_results_as_without(check, net, data, max_memory):
    check(lambda: GridSearchCV(net(dropout=0.1), GRID, cv=3).fit(*data), max_memory=max_memory)


@pytest.mark.parametrize("limits", [{"max_memory": "1KB"}, {"max_models": 1}], ids=str)
@pytest.mark.parametrize("cv", [2, 3])
def test_limits__when_searches_are_nested__then_as_without(check, net, data, limits, cv):
    def run():
        inner = GridSearchCV(
            BaggingClassifier(net(), n_estimators=2, random_state=0), {"max_features": [0.6, 1.0]}, cv=2
        )
        return cross_val_score(inner, *data, cv=cv)

    check(run, **limits)


@pytest.mark.parametrize(
    ("memory", "n_bytes"),
    [
        (1, 1),
        (1e9, 10**9),
        (1e20, 10**20),
        (np.float64(2e16), 2 * 10**16),
        (np.int64(5), 5),
        ("5", 5),
        ("1KB", 1000),
        ("2GB", 2 * 10**9),
        ("2gb", 2 * 10**9),
        (" 500 MB ", 5 * 10**8),
        ("0.5 GB", 5 * 10**8),
        ("1T", 10**12),
        ("2GiB", 2 * 2**30),
        ("1.5 KiB", 1536),
        ("10B", 10),
    ],
)
def test_parse_bytes__when_amount__then_bytes(memory, n_bytes):
    assert parse_bytes(memory) == n_bytes


@pytest.mark.parametrize("memory", [0, -1, "", "GB", "2 apples", "-2GB", "0", 0.5, None, True, float("nan"), "2GB 3"])
def test_parse_bytes__when_no_amount__then_error_names_it(memory):
    with pytest.raises(ValueError, match="max_memory must be.*" + re.escape(repr(memory))):
        parse_bytes(memory)


@pytest.mark.parametrize("max_models", [0, -1, 2.5, float("nan"), "8", None, True])
def test_max_models__when_no_positive_integer__then_error_before_the_context(max_models):
    with pytest.raises(ValueError, match=f"max_models must be an integer of at least 1. Got {max_models!r}"):
        skdl.train_together(max_models=max_models)


def test_device__when_there_is_none__then_every_fit_says_so(net, data):
    with skdl.train_together(device="cuda:7"), pytest.raises(ValueError, match="cuda:7"):
        net().fit(*data)


def test_device__then_in_place_of_the_estimators_own(net, data):
    with skdl.train_together(device="cpu") as run:
        net(device="auto").fit(*data)

    assert run.report_[0].device == "cpu"


def test_device__when_networks_of_a_fit_cannot_be_stacked__then_they_are_one_fit(data):
    regressor = skdl.MLPRegressor(loss=lambda output, target: (output - target) ** 2, n_members=3, max_epochs=2)

    with skdl.train_together(device="cpu") as run:
        regressor.fit(*data)

    # Before it, some are tried with each scaling of the columns.
    assert run.report_[-1].n_models == 3


def test_report__when_a_network_is_the_users__then_it_is_not_kept(data):
    backbone = torch.nn.Conv2d(1, 5, (2, 3))
    images = np.random.default_rng(0).integers(256, size=(20, 8, 8)).astype(np.uint8)
    with skdl.train_together() as run:
        skdl.CNNClassifier(backbone=backbone, freeze="all", max_epochs=1).fit(images, np.arange(20) % 2)

    assert len(run.report_) == 1
    gc.collect()
    alike = [part for part in gc.get_objects() if type(part) is torch.nn.Conv2d and part is not backbone]
    assert [part for part in alike if part.weight.shape == backbone.weight.shape] == []


# --- memory ----------------------------------------------------------------------------------------------------------


def tables_in_memory():
    gc.collect()
    tables = [thing for thing in gc.get_objects() if type(thing) is DenseTable]
    return len({table.values.data_ptr() for table in tables})


def test_tables__when_equal_in_every_candidate__then_jobs_share_one_a_fold(net, data, rounds):
    seen, _ = rounds

    with skdl.train_together():
        GridSearchCV(net(), {"learning_rate": np.logspace(-3, -1, 8)}, cv=5, refit=False).fit(*data)

    assert sum(len(jobs) for jobs, _ in seen) == 40
    for jobs, _ in seen:
        assert len({id(job.train.table) for job in jobs}) <= 5


def test_tables__when_equal_in_every_candidate__then_no_other_copy_is_alive_while_training(net, data, rounds):
    # 24 candidates of a table of 200 MB must not hold 24 encoded copies while they wait.
    seen, spy = rounds
    before = tables_in_memory()
    spy.look = tables_in_memory

    with skdl.train_together():
        GridSearchCV(net(), {"learning_rate": np.logspace(-3, -1, 8)}, cv=5, refit=False).fit(*data)

    assert max(alive for _, alive in seen) - before <= 5


def test_tables__when_validation_rows_are_held_out__then_they_are_of_the_same_table(net, data, rounds):
    seen, _ = rounds

    with skdl.train_together():
        GridSearchCV(net(early_stopping=True, n_members=2), {"l1": [0.0, 0.1]}, cv=2, refit=False).fit(*data)

    jobs = [job for jobs, _ in seen for job in jobs]
    assert len(jobs) == 8
    assert all(job.validation.table is job.train.table for job in jobs)


def test_tables__when_trained__then_none_is_kept(net, data):
    before = tables_in_memory()

    with skdl.train_together():
        search = GridSearchCV(net(), {"learning_rate": [0.01, 0.1]}, cv=3).fit(*data)
        assert tables_in_memory() == before
    assert search.best_score_ > 0


def test_tables__when_contents_differ__then_not_mixed_up(assert_equal_runs, net, data):
    X, y = data
    tables = [X, X * 2, X[::-1], X.astype(np.float32).astype(float), np.where(X > 1, np.nan, X)]

    def run():
        return joblib.Parallel()(joblib.delayed(lambda table: net().fit(table, y))(table) for table in tables)

    plain = run()
    with skdl.train_together():
        together = run()
    assert_equal_runs(plain, together)


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), True),
        (torch.zeros(3, 2), torch.zeros(2, 3), False),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.float64), False),
        (torch.zeros(3, 2), torch.eye(3)[:, :2], False),
        (torch.arange(6.0).view(3, 2), torch.arange(6.0).view(2, 3).T.contiguous(), False),
        (torch.arange(6.0).view(2, 3).T, torch.arange(6.0).view(2, 3).T.contiguous(), True),
        (torch.empty(3, 0), torch.empty(3, 0), True),
    ],
)
def test_equals__then_as_shape_type_and_numbers_are(one, other, are_equal):
    one, other = DenseTable(one), DenseTable(other)

    assert (one.fingerprint() == other.fingerprint() and one.equals(other)) == are_equal


def test_equals__when_levels_differ__then_not():
    values = torch.zeros(2, 1)

    one, other = DenseTable(values, torch.tensor([[0], [1]])), DenseTable(values, torch.tensor([[1], [0]]))

    assert one.equals(DenseTable(values, torch.tensor([[0], [1]])))
    assert not one.equals(other) and not one.equals(DenseTable(values)) and not DenseTable(values).equals(one)


class CountsTasks(ClassifierMixin, BaseEstimator):
    """A search of its own in every fit, and how many tasks there were at a time."""

    most = 0

    def __init__(self, net=None, a=0):
        self.net, self.a = net, a

    def fit(self, X, y):
        self.search_ = GridSearchCV(self.net, {"learning_rate": [0.01, 0.1]}, cv=2).fit(X, y)
        self.classes_ = self.search_.classes_
        names = [thread.name for thread in threading.enumerate()]
        CountsTasks.most = max(CountsTasks.most, names.count("skdl-task"))
        return self

    def predict(self, X):
        return self.search_.predict(X)


def test_limits__when_searches_are_nested__then_inner_tasks_go_first(net, data):
    """Outer tasks that wait for inner ones hold their data too: they must not all begin before an inner one ends."""
    CountsTasks.most = 0

    with skdl.train_together(max_memory="1KB", max_models=40):
        GridSearchCV(CountsTasks(net(max_epochs=1)), {"a": range(15)}, cv=2, refit=False).fit(*data)

    assert CountsTasks.most <= 4 * joblib.cpu_count()


def test_tables__when_images_have_their_channels_first__then_each_fold_is_kept_once(rounds):
    seen, _ = rounds
    X = np.random.default_rng(0).integers(256, size=(40, 3, 8, 8)).astype(np.uint8)

    with skdl.train_together():
        model = skdl.CNNClassifier(max_epochs=1, conv_channels=(2,), augment=None)
        GridSearchCV(model, {"learning_rate": [0.01, 0.02, 0.05]}, cv=2, refit=False).fit(X, np.arange(40) % 2)

    tables = [{id(job.train.table) for job in jobs} for jobs, _ in seen]
    assert sum(map(len, tables)) < 6


def test_limits__when_all_columns_are_embedded__then_they_count_too(net):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"t{j}": [f"level {i}" for i in rng.integers(100, size=3000)] for j in range(4)})
    most = 0

    def score(estimator, X, y):
        nonlocal most
        most = max(most, [thread.name for thread in threading.enumerate()].count("skdl-task"))
        return 0.0

    with skdl.train_together(max_memory="1500KB"):
        grid = {"learning_rate": np.logspace(-3, -1, 10)}
        GridSearchCV(net(max_epochs=1), grid, cv=3, scoring=score, refit=False).fit(X, np.arange(3000) % 2)

    # Of 30; those that are done, but not ended, are among them.
    assert 0 < most <= 12 + joblib.cpu_count()


# --- report ----------------------------------------------------------------------------------------------------------


def test_report__then_every_stack_stands_in_it(net, data):
    with skdl.train_together() as run:
        GridSearchCV(net(), {"learning_rate": np.logspace(-3, -1, 5), "hidden_layer_sizes": [(8,), (4, 3)]}, cv=3).fit(
            *data
        )

    by_widths = {}
    for stack in run.report_:
        by_widths[stack.network] = by_widths.get(stack.network, 0) + stack.n_models
        assert stack.n_epochs == 3 * stack.n_models
        assert 0 < stack.seconds < 40
    assert sum(by_widths.values()) == 31
    assert len(by_widths) == 2


def test_report__then_prints_a_line_a_stack_and_a_sum(net, data):
    with skdl.train_together(max_models=4) as run:
        cross_val_score(net(), *data, cv=4)

    title, *stacks, total = str(run.report_).splitlines()
    assert [word in title for word in ("network", "device", "models", "seconds")] == [True] * 4
    assert len(stacks) == len(run.report_)
    assert all(re.search(r"cpu +\d+ +3\.0 +\d+\.\d\d +\d+", line) for line in stacks)
    assert total == f"{len(stacks)} stacks, 4 models, 12 epochs in all"
    assert str(run.report_) in repr(run)


def test_report__when_nothing_was_trained__then_empty_and_printable(data):
    with skdl.train_together() as run:
        cross_val_score(LogisticRegression(), *data, cv=2)

    assert run.report_ == []
    assert str(run.report_).endswith("0 stacks, 0 models, 0 epochs in all")


def test_report__when_model_stops_early__then_its_own_epochs_count(net, data):
    calls = count()

    def worse_each_time(estimator, X, y):
        return -next(calls)

    estimator = net(early_stopping=True, scoring=worse_each_time, n_iter_no_change=2, max_epochs=9)
    with skdl.train_together() as run:
        cross_val_score(estimator, *data, cv=3)

    assert sum(stack.n_epochs for stack in run.report_) == 3 * 3


def test_report__when_nested_contexts__then_one_report(net, data):
    with skdl.train_together() as outer:
        with skdl.train_together(max_models=1) as inner:
            cross_val_score(net(), *data, cv=3)
        assert inner is outer

    assert sum(stack.n_models for stack in outer.report_) == 3


def test_fitted_estimator__then_is_pickled_without_the_context(net, data):
    with skdl.train_together():
        search = GridSearchCV(net(), {"learning_rate": [0.01, 0.1]}, cv=2).fit(*data)
        copied = pickle.loads(pickle.dumps(search))

    np.testing.assert_array_equal(copied.predict_proba(data[0]), search.predict_proba(data[0]))
