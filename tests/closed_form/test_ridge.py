"""Ridge regression beside scikit-learn's, and what it says of held-out rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

from skdl.closed_form.ridge import PENALTIES, RidgeProblem, best_penalty
from skdl.data.folds import Fold

ROWS = np.arange(40)
FOLDS = [Fold(np.setdiff1d(ROWS, rows), rows) for rows in (ROWS[:10], ROWS[10:25], ROWS[25:])]


def data(n=40, p=6, seed=0):
    rng = np.random.RandomState(seed)
    X = rng.normal(2, 3, size=(n, p))
    return X, np.stack([X[:, 0] - X[:, 1], X[:, 2]], axis=1) + rng.normal(size=(n, 2)), rng.uniform(0.5, 2, n)


def reference(X, Y, new, penalty, weight=None):
    center = np.average(X, axis=0, weights=weight)
    scale = np.sqrt(np.average((X - center) ** 2, axis=0, weights=weight))
    return lambda rows: (
        Ridge(penalty)
        .fit((X[rows] - center) / scale, Y[rows], None if weight is None else weight[rows])
        .predict((new - center) / scale)
    )


@pytest.mark.parametrize("p", [6, 90], ids=["few columns", "many columns"])
@pytest.mark.parametrize("weighted", [False, True])
def test_outputs_are_scikit_learns(p, weighted):
    X, Y, weight = data(p=p)
    weight = weight / weight.mean() if weighted else None
    problem = RidgeProblem(X, Y, weight)
    assert problem.is_primal == (p == 6)
    expected = reference(X, Y, X, 0.1 * 40, weight)(ROWS)
    assert_allclose(problem.solved(0.1).predict(X), expected, atol=2e-3)
    # Some rows are neither held out nor learned from.
    folds = [FOLDS[0], Fold(np.setdiff1d(ROWS, ROWS[8:27]), FOLDS[1].held_out), FOLDS[2]]
    held_out = problem.out_of_fold(0.1, folds)
    for fold in folds:
        expected = reference(X, Y, X[fold.held_out], 0.1 * len(fold.train), weight)(fold.train)
        assert_allclose(held_out[fold.held_out], expected, atol=3e-3)


def test_a_constant_column_is_ignored():
    X, Y, _ = data()
    both = [RidgeProblem(x, Y).solved(0.1).predict(x) for x in (X, np.hstack([X, np.full((40, 1), 7.0)]))]
    assert_allclose(*both, atol=1e-9)


def test_the_best_penalty_is_that_of_the_whole_grid():
    X, Y, _ = data(p=30)
    problem = RidgeProblem(X, Y)
    errors = [((problem.out_of_fold(penalty, FOLDS) - Y) ** 2).mean() for penalty in PENALTIES]
    penalty, outputs, error = best_penalty(problem, FOLDS)
    assert penalty == PENALTIES[int(np.argmin(errors))]
    assert error == pytest.approx(min(errors))
    assert_allclose(outputs, problem.out_of_fold(penalty, FOLDS))


def test_rows_that_no_fold_holds_out_do_not_count():
    X, Y, _ = data()
    penalty, outputs, error = best_penalty(RidgeProblem(X, Y), FOLDS[:1])
    assert error == pytest.approx(((outputs[:10] - Y[:10]) ** 2).mean()) and (outputs[10:] == 0).all()
    assert penalty in PENALTIES
