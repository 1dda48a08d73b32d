"""Random trees of searches, parallel calls, threads, contexts, fits and failures: equal results, and no dead-lock."""

import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

import skdl

LEAVES = st.one_of(
    st.tuples(st.just("fit"), st.integers(0, 3)),
    st.tuples(st.just("other"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.integers(0, 1)),
    st.tuples(st.just("score"), st.integers(2, 3)),
)
NODES = ["parallel", "sequence", "threads", "threading", "context", "search", "lazy"]
TREES = st.recursive(
    LEAVES,
    lambda children: st.tuples(st.sampled_from(NODES), st.lists(children, min_size=1, max_size=3)),
    max_leaves=8,
)
LIMITS = st.fixed_dictionaries({"max_models": st.sampled_from([1, 2, 5, 256])}) | st.just({"max_memory": "1KB"})


class Holder(ClassifierMixin, BaseEstimator):
    """An estimator whose fit runs a tree."""

    def __init__(self, run=None, tree=None):
        self.run, self.tree = run, tree

    def __sklearn_clone__(self):
        return Holder(self.run, self.tree)

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.value_ = self.run(self.tree)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y):
        return total(self.value_)


def total(value):
    return float(value) if isinstance(value, int | float) else sum(map(total, value))


class Tree:
    """Runs a tree with tiny networks on fixed data."""

    def __init__(self, net, X, y):
        self.net, self.X, self.y = net, X, y

    def __call__(self, tree):
        kind, content = tree
        return getattr(self, kind)(content)

    def fit(self, seed):
        return self.net(random_state=seed, hidden_layer_sizes=(4 + seed % 2,)).fit(self.X, self.y).score(self.X, self.y)

    def other(self, seed):
        return LogisticRegression(C=1.0 + seed).fit(self.X, self.y).score(self.X, self.y)

    def fail(self, where):
        """A search that fails at once or when it scores, and is caught."""
        estimator = self.net(learning_rate=-1.0) if where == 0 else self.net()
        try:
            cross_val_score(estimator, self.X, self.y, cv=3, scoring=lambda *_: 1 // 0, error_score="raise")
        except (ValueError, ZeroDivisionError):
            return 0.5
        return -1.0

    def score(self, cv):
        return cross_val_score(self.net(), self.X, self.y, cv=cv).tolist()

    def parallel(self, children):
        return joblib.Parallel(n_jobs=2)(joblib.delayed(self)(child) for child in children)

    def threading(self, children):
        return joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(self)(child) for child in children)

    def lazy(self, children):
        """The tasks are drawn from a generator that works itself."""
        return joblib.Parallel(n_jobs=2)(joblib.delayed(float)(total(self(child))) for child in children)

    def sequence(self, children):
        return [self(child) for child in children]

    def threads(self, children):
        with ThreadPoolExecutor(len(children)) as pool:
            return list(pool.map(self, children))

    def context(self, children):
        with skdl.train_together():
            return self.parallel(children)

    def search(self, children):
        rows = np.arange(len(self.y))
        search = GridSearchCV(
            Holder(self), {"tree": children}, cv=[(rows, rows)], refit=False, error_score="raise", n_jobs=2
        )
        return search.fit(self.X, self.y).cv_results_["mean_test_score"].tolist()


class Plain(Tree):
    """The same, one after the other."""

    def __init__(self, *args):
        super().__init__(*args)
        self.known = {}

    def __call__(self, tree):
        key = repr(tree)
        if key not in self.known:
            self.known[key] = super().__call__(tree)
        return self.known[key]

    parallel = threading = context = threads = Tree.sequence

    def lazy(self, children):
        return [total(self(child)) for child in children]

    def search(self, children):
        return [total(self(child)) for child in children]


@pytest.fixture(scope="module")
def trees(net, data):
    X, y = data

    def tiny(**parameters):
        return net(**{"max_epochs": 1, **parameters})

    together = Tree(tiny, X[:30], y[:30])
    # A parallel call in a thread of the tree's own starts processes: that may take longer than a tree has time for.
    joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(together)(("fit", 0)) for _ in range(2))
    return Plain(tiny, X[:30], y[:30]), together


def in_any_thread(function, in_main):
    """What a function gives in this thread, or in one of its own."""
    if in_main:
        return function()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(30)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    # Shrinking what hangs would take hours.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(tree=TREES, limits=LIMITS, in_main=st.booleans())
def test_together__when_nested_at_random__then_as_without_and_no_dead_lock(limit, trees, tree, limits, in_main):
    plain, together = trees
    expected = plain(tree)

    def run():
        with skdl.train_together(**limits):
            return together(tree)

    with limit(15):
        assert total(in_any_thread(run, in_main)) == pytest.approx(total(expected), rel=1e-12)
    assert threading.active_count() < 200
