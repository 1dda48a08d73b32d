"""What a network sees of rows with holes."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skdl.closed_form.completion import RANK_MARGIN, CellFeatures, bin_edges
from skdl.closed_form.gaussian import fit_gaussian

N, D = 200, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rows():
    x = torch.randn(N, D, generator=generator(1))
    x[:, 1] += x[:, 0]
    present = torch.rand(N, D, generator=generator(2)) > 0.3
    return x * present, present


@pytest.fixture
def features(rows):
    return CellFeatures.of(fit_gaussian(*rows, generator()), *rows, torch.arange(D), generator())


def test_features_when_rows_have_holes_then_completion_and_holes_stand_in_front(rows, features):
    x, present = rows
    seen = features(x, present)
    assert seen.shape == (N, features.n_features) and seen.dtype == torch.float32
    assert torch.equal(seen[:, :D][present], x[present])
    torch.testing.assert_close(seen[:, :D], features.gaussian.complete(x, present).float())
    assert torch.equal(seen[:, D : 2 * D], (~present).float())


def test_features_when_cell_is_hidden_then_its_value_does_not_matter(rows, features):
    x, present = rows
    other = torch.where(present, x, 7 * torch.randn(N, D, generator=generator(3)))
    assert torch.equal(features(x, present), features(other, present))


def test_features_when_cell_is_present_then_its_value_does_matter(rows, features):
    x, _ = rows
    present = torch.ones(N, D, dtype=torch.bool)
    other = x.clone()
    other[:, 2] += 0.5
    changed = (features(x, present) != features(other, present)).any(0)
    assert changed[2] and not changed[:2].any() and not changed[3:D].any()


def test_features_when_present_then_normal_score_is_that_of_the_rank():
    # With bins of equally many values the mean over them is the rank.
    x = torch.linspace(-2, 5, 801).double().pow(3)[:, None]
    present = torch.ones_like(x, dtype=torch.bool)
    features = CellFeatures.of(fit_gaussian(x, present, generator()), x, present, torch.arange(1), generator())
    scores = features(x, present)[:, 2].numpy()
    rank = np.linspace(0, 1, 801)
    expected = norm.ppf(RANK_MARGIN + (1 - 2 * RANK_MARGIN) * rank)
    # Within a bin the rank is interpolated in a straight line.
    np.testing.assert_allclose(scores, expected, atol=0.06)
    assert (np.diff(scores) >= 0).all()


def test_features_when_columns_are_levels_then_neither_bins_nor_scores_of_theirs(rows):
    x, present = rows
    gaussian = fit_gaussian(x, present, generator())
    mixed = CellFeatures.of(gaussian, x, present, torch.tensor([1, 3]), generator())
    n_bins = mixed.edges_ME.shape[1] - 1
    assert mixed.n_features == mixed(x, present).shape[1] == 3 * D + 2 * n_bins
    of_levels = CellFeatures.of(gaussian, x, present, torch.arange(0), generator())
    assert of_levels.n_features == 2 * D
    assert torch.equal(of_levels(x, present), mixed(x, present)[:, : 2 * D])


def test_bins_when_values_are_skewed_then_equally_many_in_each():
    x = torch.randn(1600, 2, generator=generator()).exp()
    edges = bin_edges(x, torch.ones_like(x, dtype=torch.bool))
    for d in range(2):
        counts = torch.histogram(x[:, d], edges[d] - 1e-3 * torch.arange(len(edges[d])))[0]
        assert counts.max() - counts.min() <= 4


def test_bins_when_cells_are_missing_then_edges_are_of_the_others(rows):
    x, present = rows
    other = torch.where(present, x, 100.0)
    assert torch.equal(bin_edges(x, present), bin_edges(other, present))


@pytest.mark.parametrize("values", [[0.5] * 30, [0.0] * 29 + [1.0], [1.0]], ids=["constant", "rare", "one row"])
def test_bins_when_values_repeat_then_edges_rise(values):
    x = torch.tensor(values)[:, None]
    assert (bin_edges(x, torch.ones_like(x, dtype=torch.bool)).diff() > 0).all()


def test_bins_when_columns_are_many_then_fewer_each():
    def n_bins(n_columns):
        x = torch.randn(50, n_columns, generator=generator())
        return bin_edges(x, torch.ones_like(x, dtype=torch.bool)).shape[1] - 1

    assert n_bins(2) > n_bins(100) > 1
    assert n_bins(100) >= n_bins(1000) > 1
