"""The Gaussian of rows with holes against closed forms in numpy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from skdl.closed_form import patterns
from skdl.closed_form.gaussian import PRIOR_ROWS, PRIORS, Gaussian, RowsWithHoles, best_prior, fit_gaussian, usual_prior

D = 6


def random_gaussian(rng, n_columns=D):
    root = rng.normal(size=(n_columns, n_columns))
    return rng.normal(size=n_columns), root @ root.T + 0.1 * np.eye(n_columns)


def conditional(mean, covariance, row, present):
    """Mean and covariance of a row's missing cells, by the textbook."""
    o, m = np.flatnonzero(present), np.flatnonzero(~present)
    weights = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, m)]).T
    return mean[m] + weights @ (row[o] - mean[o]), covariance[np.ix_(m, m)] - weights @ covariance[np.ix_(o, m)]


def tensors(*arrays):
    return tuple(torch.from_numpy(np.asarray(array)) for array in arrays)


def fitted(x, present, seed=0):
    return fit_gaussian(*tensors(np.where(present, x, 0.0), present), torch.Generator().manual_seed(seed))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=[1, 4], ids=["own patterns", "shared patterns"])
def rows(rng, request):
    """A distribution, rows that it did not make, and holes: of none, of all, and of any number of cells.

    Either most rows have holes of their own, or some others the same.
    """
    mean, covariance = random_gaussian(rng)
    n_patterns = 40
    x = 3 * rng.normal(size=(n_patterns * request.param, D))
    present = rng.random((n_patterns, D)) < rng.random((n_patterns, 1))
    present[0], present[1], present[2] = False, True, np.arange(D) == 2
    present = rng.permutation(np.tile(present, (request.param, 1)))
    assert (len(np.unique(present, axis=0)) <= len(present) / 2) == (request.param > 1)
    return mean, covariance, x, present


def test_complete_when_patterns_are_random_then_conditional_mean(rows):
    mean, covariance, x, present = rows
    completed = Gaussian.of(*tensors(mean, covariance)).complete(*tensors(x, present)).numpy()
    assert_array_equal(completed[present], x[present])
    for row, shown, got in zip(x, present, completed, strict=True):
        assert_allclose(got[~shown], conditional(mean, covariance, row, shown)[0], rtol=1e-8, atol=1e-8)
    assert_array_equal(completed[~present.any(axis=1)], [mean] * (~present.any(axis=1)).sum())


def test_deviation_when_patterns_are_random_then_root_of_conditional_variance(rows):
    mean, covariance, x, present = rows
    deviation = Gaussian.of(*tensors(mean, covariance)).deviation(*tensors(present)).numpy()
    assert_array_equal(deviation[present], 0)
    for row, shown, got in zip(x, present, deviation, strict=True):
        expected = np.sqrt(np.diag(conditional(mean, covariance, row, shown)[1]))
        assert_allclose(got[~shown], expected, rtol=1e-8, atol=1e-8)


def test_covariance_of_when_patterns_are_random_then_conditional_covariance(rows):
    mean, covariance, x, present = rows
    present[:, 2:4] = False
    found = Gaussian.of(*tensors(mean, covariance)).covariance_of(slice(2, 4), *tensors(present)).numpy()
    for row, shown, got in zip(x, present, found, strict=True):
        at = np.searchsorted(np.flatnonzero(~shown), [2, 3])
        expected = conditional(mean, covariance, row, shown)[1][np.ix_(at, at)]
        assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


def test_complete_when_nothing_is_missing_then_rows_as_they_are(rows):
    mean, covariance, x, present = rows
    completed = Gaussian.of(*tensors(mean, covariance)).complete(*tensors(x, np.ones_like(present)))
    assert_array_equal(completed.numpy(), x)


def test_complete_when_cell_is_missing_then_its_number_is_not_read(rows):
    mean, covariance, x, present = rows
    gaussian = Gaussian.of(*tensors(mean, covariance))
    other = np.where(present, x, 1e6)
    assert_array_equal(gaussian.complete(*tensors(x, present)), gaussian.complete(*tensors(other, present)))


def test_complete_when_batch_is_another_then_row_is_the_same(rows):
    mean, covariance, x, present = rows
    gaussian = Gaussian.of(*tensors(mean, covariance))
    together = gaussian.complete(*tensors(x, present)).numpy()
    alone = np.concatenate([gaussian.complete(*tensors(x[i : i + 1], present[i : i + 1])) for i in range(len(x))])
    order = np.random.default_rng(1).permutation(len(x))
    assert_allclose(alone, together, rtol=1e-10, atol=1e-10)
    assert_allclose(gaussian.complete(*tensors(x[order], present[order])), together[order], rtol=1e-10, atol=1e-10)


def test_draw_when_repeated_then_conditional_covariance(rng):
    mean, covariance = random_gaussian(rng, 3)
    gaussian = Gaussian.of(*tensors(mean, covariance))
    present = np.array([True, False, False])
    for shown in (np.tile(present, (20_000, 1)), np.vstack([present, ~present])):
        # Rows that share their holes, and rows that do not.
        draws = [gaussian.draw(*tensors(shown), torch.Generator().manual_seed(seed)).numpy() for seed in range(3)]
        assert not np.allclose(draws[0], draws[1])
        assert all((draw[shown] == 0).all() and (draw[~shown] != 0).all() for draw in draws)
    drawn = gaussian.draw(*tensors(np.tile(present, (20_000, 1))), torch.Generator().manual_seed(0)).numpy()
    expected = conditional(mean, covariance, np.zeros(3), present)[1]
    assert_allclose(np.cov(drawn[:, 1:].T), expected, rtol=0.1)


@pytest.mark.parametrize("n_columns", [1, 4])
def test_redrawn_when_repeated_then_as_uncertain_as_from_so_many_rows(rng, n_columns):
    n_rows, root = 50, rng.normal(size=(n_columns, n_columns))
    mean, covariance = torch.from_numpy(rng.normal(size=n_columns)), torch.from_numpy(root @ root.T)
    gaussian = Gaussian.of(mean, covariance + torch.eye(n_columns), torch.full((n_columns,), n_rows))
    random_state = np.random.RandomState(0)
    drawn = [gaussian.redrawn(random_state) for _ in range(4000)]
    deviation = gaussian.covariance.diagonal().sqrt()
    moved = torch.stack([one.mean - mean for one in drawn]) / deviation
    assert_allclose(moved.mean(0), 0, atol=0.01)
    assert_allclose(moved.square().mean(0), 1 / n_rows, rtol=0.15)
    # The relative variance of a variance is 2 over the degrees of freedom.
    variances = torch.stack([one.covariance.diagonal() for one in drawn]) / deviation**2
    assert_allclose(variances.mean(0), 1, atol=0.02)
    assert_allclose(variances.var(0), 2 / n_rows, rtol=0.2)
    covariances = torch.stack([one.covariance for one in drawn]) / torch.outer(deviation, deviation)
    assert_allclose(covariances.mean(0), gaussian.covariance / torch.outer(deviation, deviation), atol=0.03)
    # One that is as good as unknown is drawn all the same.
    unknown = Gaussian.of(gaussian.mean, gaussian.covariance, torch.zeros(n_columns))
    assert torch.linalg.cholesky(unknown.redrawn(random_state).covariance).isfinite().all()


def test_redrawn_when_one_column_is_less_known_then_more_uncertain(rng):
    mean, covariance = tensors(*random_gaussian(rng, 3))
    gaussian = Gaussian.of(mean, covariance, torch.tensor([400.0, 20.0, 400.0]))
    random_state = np.random.RandomState(0)
    drawn = [gaussian.redrawn(random_state) for _ in range(4000)]
    variances = torch.stack([one.covariance.diagonal() for one in drawn]) / covariance.diagonal()
    assert_allclose(variances[:, [0, 2]].var(0), 2 / 400, rtol=0.2)
    # What the others say of it is drawn of 20 rows.
    left = torch.stack([1 / one.precision[1, 1] for one in drawn]) * gaussian.precision[1, 1]
    assert_allclose(left.var(), 2 / 20, rtol=0.4)
    weights = torch.stack([-one.precision[1, 0] / one.precision[1, 1] for one in drawn])
    others = torch.linalg.inv(covariance[[0, 2]][:, [0, 2]])
    assert_allclose(weights.var(), others[0, 0] / gaussian.precision[1, 1] / 20, rtol=0.2)


def test_fit_when_rows_share_their_holes_then_as_when_each_is_alone(rng, monkeypatch):
    x = rng.multivariate_normal(*random_gaussian(rng, 3), size=60)
    present = rng.random(x.shape) > 0.3
    together = fitted(x, present)
    monkeypatch.setattr(patterns, "CODED_COLUMNS", 2)
    alone = fitted(x, present)
    assert_allclose(alone.mean, together.mean, rtol=1e-10, atol=1e-10)
    assert_allclose(alone.covariance, together.covariance, rtol=1e-10, atol=1e-10)


def test_fit_when_cells_are_missing_at_random_then_finds_the_distribution(rng):
    n = 4000
    mean, covariance = random_gaussian(rng, 4)
    x = rng.multivariate_normal(mean, covariance, size=n)
    present = rng.random(x.shape) > 0.3
    # The fourth is missing where the first is large: what is present of it has another mean.
    present[:, 0] = True
    present[:, 3] = x[:, 0] < mean[0]
    gaussian = fitted(x, present)
    scale = np.sqrt(np.diag(covariance))
    # Errors of means and correlations are about 1 / sqrt(n) = 0.016, more where half is missing.
    assert_allclose((gaussian.mean.numpy() - mean) / scale, 0, atol=0.1)
    assert_allclose((gaussian.covariance.numpy() - covariance) / np.outer(scale, scale), 0, atol=0.1)
    assert abs(x[present[:, 3], 3].mean() - mean[3]) / scale[3] > 0.2


def test_fit_when_rows_are_many_then_all_cells_of_a_rare_column_count(rng):
    n_rows = 20_000
    a = rng.normal(size=n_rows)
    x = np.column_stack([a, rng.normal(size=n_rows), a + 0.5 * rng.normal(size=n_rows)])
    present = np.ones(x.shape, dtype=bool)
    # They are where the first column is large, which is not to tell on that one.
    present[:, 2] = (a > 0) & (rng.random(n_rows) < 0.02)
    shown = present[:, 2]
    gaussian = fitted(x, present)
    assert gaussian.n_rows[2] == shown.sum() and 5000 < gaussian.n_rows.max() <= 6000
    assert_allclose(gaussian.mean[0], a.mean(), atol=0.05)
    slope, constant = np.polyfit(a[shown], x[shown, 2], 1)
    # The standard error of the slope is 0.06.
    assert_allclose(gaussian.covariance[0, 2] / gaussian.covariance[0, 0], slope, atol=0.06)
    assert_allclose(gaussian.mean[2], constant + slope * a.mean(), atol=0.06)


def test_fit_when_no_row_of_the_sample_differs_then_variance_is_that_of_all_rows(rng):
    x = np.column_stack([rng.normal(size=50_000), np.arange(50_000) == 7])
    gaussian = fitted(x.astype(float), np.ones(x.shape, dtype=bool))
    assert gaussian.covariance[1, 1] > 0.1 * x[:, 1].var() * PRIOR_ROWS / 6000


@pytest.mark.parametrize("threshold", [-0.5, -1.0])
def test_fit_when_most_of_a_column_is_missing_beyond_a_threshold_then_regression_on_the_other(rng, threshold):
    a = rng.normal(size=5000)
    x = np.column_stack([a, 0.8 * a + 0.6 * rng.normal(size=5000)])
    present = np.column_stack([np.ones(5000, dtype=bool), a < threshold])
    gaussian = fitted(x, present)
    slope, constant = np.polyfit(a[a < threshold], x[a < threshold, 1], 1)
    # The standard error of the mean by that regression is 0.02 and 0.05.
    assert_allclose(gaussian.mean[1], slope * a.mean() + constant, atol=0.06)
    assert_allclose(gaussian.covariance[0, 1] / gaussian.covariance[0, 0], slope, atol=0.05)


def test_improved_when_rows_have_holes_then_more_probable_each_time(rng):
    mean, covariance = random_gaussian(rng, 3)
    x = rng.multivariate_normal(mean, covariance, size=60)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    present = rng.random(x.shape) > 0.4
    for shown in (present, np.tile(present[:10], (6, 1))):
        # Rows whose holes are their own, and rows that share them.
        holes = tensors(~shown)[0]
        cells = tensors(np.where(shown, x, 0.0), shown, np.ones(60))
        rows = RowsWithHoles(*cells, 2.0, list(patterns.blocks_of(holes)))
        found, expected = [], []
        theta = rows.start()
        for _ in range(4):
            theta_mean, theta_covariance = (part.numpy() for part in rows.parts(theta))
            theta, value = rows.improved(theta)
            found.append(value)
            expected.append(
                sum(
                    multivariate_normal.logpdf(row[cells], theta_mean[cells], theta_covariance[np.ix_(cells, cells)])
                    for row, cells in zip(x, shown, strict=True)
                    if cells.any()
                )
                - np.linalg.slogdet(theta_covariance)[1]
                - np.trace(np.linalg.inv(theta_covariance))
            )
        assert_allclose(np.diff(found), np.diff(expected), rtol=1e-8)
        assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("n_copies", [1, 4], ids=["own patterns", "shared patterns"])
def test_improved_when_row_has_weight_two_then_as_when_it_comes_twice(rng, n_copies):
    x, shown = np.tile(rng.normal(size=(20, 3)), (n_copies, 1)), np.tile(rng.random((20, 3)) > 0.4, (n_copies, 1))

    def improved(rows, weight):
        cells = tensors(np.where(shown, x, 0.0)[rows], shown[rows], weight)
        problem = RowsWithHoles(*cells, 2.0, list(patterns.blocks_of(~cells[1])))
        return problem.improved(problem.start())

    (one, value), (other, same) = (
        improved(np.arange(len(x)), 1.0 + (np.arange(len(x)) < 7)),
        improved(np.r_[np.arange(len(x)), np.arange(7)], np.ones(len(x) + 7)),
    )
    assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert_allclose(value, same, rtol=1e-10)


def test_fit_when_nothing_is_missing_then_sample_moments(rng):
    x = rng.multivariate_normal(*random_gaussian(rng, 3), size=1000)
    gaussian = fitted(x, np.ones(x.shape, dtype=bool))
    sample = np.cov(x.T, bias=True)
    assert_allclose(gaussian.mean, x.mean(axis=0), rtol=1e-10)
    # The prior's few rows of independent columns weaken the correlations by less than 1 %.
    assert_allclose(np.diag(gaussian.covariance), np.diag(sample), rtol=1e-10)
    off = ~np.eye(3, dtype=bool)
    ratio = gaussian.covariance.numpy()[off] / sample[off]
    assert np.ptp(ratio) < 1e-10 and 0.99 < ratio[0] < 1


def test_fit_when_columns_outnumber_rows_then_positive_definite(rng):
    x = rng.normal(size=(10, 40))
    present = rng.random(x.shape) > 0.3
    gaussian = fitted(x, present)
    assert torch.linalg.eigvalsh(gaussian.covariance).min() > 0
    assert_allclose(gaussian.covariance @ gaussian.precision, np.eye(40), atol=1e-8)
    assert gaussian.complete(*tensors(x, present)).isfinite().all()


def test_fit_when_column_is_constant_then_completed_with_it(rng):
    x = np.column_stack([rng.normal(size=50), np.full(50, 0.7)])
    present = rng.random(x.shape) > 0.3
    completed = fitted(x, present).complete(*tensors(x, present)).numpy()
    assert_allclose(completed[:, 1], 0.7, atol=1e-6)


def test_fit_when_columns_are_equal_then_one_is_read_off_the_other(rng):
    a = rng.normal(size=2000)
    x, present = np.column_stack([a, a]), np.ones((2000, 2), dtype=bool)
    present[::3, 1] = False
    completed = fitted(x, present).complete(*tensors(x, present)).numpy()
    # The prior's five rows stand against 2000.
    assert_allclose(completed[::3, 1], a[::3], atol=0.02)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_fit_when_rows_are_very_few_then_finite(n_rows):
    x, present = np.arange(3.0 * n_rows).reshape(n_rows, 3), np.ones((n_rows, 3), dtype=bool)
    present[0, 0] = False
    assert fitted(x, present).complete(*tensors(x, present)).isfinite().all()


def test_fit_when_rows_are_many_then_their_draw_is_the_generators(rng):
    x = rng.normal(size=(8000, 2))
    present = np.ones(x.shape, dtype=bool)
    one, same, other = (fitted(x, present, seed) for seed in (0, 0, 1))
    assert torch.equal(one.mean, same.mean) and torch.equal(one.covariance, same.covariance)
    assert not torch.equal(one.mean, other.mean)


# --- the prior ---------------------------------------------------------------------------------------------------


def prior_of(x, column_of_D=None, seed=0):
    present = np.random.default_rng(seed).random(x.shape) > 0.2
    columns = np.arange(x.shape[1]) if column_of_D is None else np.asarray(column_of_D)
    x, present, columns = tensors(np.where(present, x, 0.0), present, columns)
    return best_prior(x, present, columns, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(3))
def test_best_prior_when_columns_say_nearly_the_same_then_weak(rng, seed):
    x = rng.normal(size=(300, 1)) + 0.05 * rng.normal(size=(300, 6))
    assert prior_of(x, seed=seed) < 1


@pytest.mark.parametrize("seed", range(3))
def test_best_prior_when_many_columns_say_nothing_then_strong(rng, seed):
    assert prior_of(rng.normal(size=(80, 40)), seed=seed) == max(PRIORS)


def test_best_prior_when_encoded_columns_are_of_one_then_they_do_not_tell_on_each_other(rng):
    x = rng.normal(size=(200, 20))
    x = np.hstack([x, -x])
    assert prior_of(x, np.arange(40)) < 1 < prior_of(x, np.arange(40) % 20)


def test_best_prior_when_there_is_nothing_to_judge_by_then_that_of_a_lone_gaussian():
    x = torch.zeros(30, 3)
    assert best_prior(x, torch.zeros_like(x).bool(), torch.arange(3), torch.Generator()) == usual_prior(30, 3)


def test_best_prior_when_generator_is_the_same_then_the_same(rng):
    x, present = tensors(rng.normal(size=(200, 70)), rng.random((200, 70)) < 0.5)
    columns = torch.arange(70)
    states = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(1)
        states.append((best_prior(x, present, columns, generator), generator.get_state().tolist()))
    assert states[0] == states[1]


def test_usual_prior_when_rows_are_many_then_worth_little_against_them():
    assert usual_prior(20, 10) == usual_prior(50, 10) == PRIOR_ROWS
    assert usual_prior(1000, 10) == PRIOR_ROWS / 20
