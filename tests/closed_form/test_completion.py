"""What a network sees of rows with holes, and what is hidden from it in training."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skdl.closed_form import completion
from skdl.closed_form.completion import (
    COPY_USES,
    LEAST_HIDDEN,
    MOST_COPY_USES,
    MOST_HIDDEN,
    RANK_MARGIN,
    CellFeatures,
    CompletionTable,
    HiddenCopies,
    Hiding,
    bin_edges,
    hidden_copies,
)
from skdl.closed_form.gaussian import fit_gaussian

N, D = 200, 5
#: Rows to take from copies.
MANY = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hiding(patterns=(), n_columns=D, seed=0, column_of_D=None):
    patterns = torch.tensor(patterns, dtype=torch.bool).reshape(-1, n_columns)
    return Hiding(generator(seed), patterns, torch.arange(n_columns) if column_of_D is None else column_of_D)


@pytest.fixture
def rows():
    x = torch.randn(N, D, generator=generator(1))
    x[:, 1] += x[:, 0]
    present = torch.rand(N, D, generator=generator(2)) > 0.3
    return x * present, present


@pytest.fixture
def features(rows):
    return CellFeatures.of(fit_gaussian(*rows, generator()), *rows, torch.arange(D), generator())


# --- features ----------------------------------------------------------------------------------------------------


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


# --- hiding ------------------------------------------------------------------------------------------------------


def test_hiding_when_drawn_in_parts_then_as_at_once():
    pattern = [[True, False, True, True, False], [False, True, True, True, True]]
    at_once, in_parts = hiding(pattern).kept(60), hiding(pattern)
    assert torch.equal(torch.cat([in_parts.kept(n) for n in (1, 9, 50)]), at_once)


def test_hiding_when_no_patterns_then_rows_lose_every_share():
    kept = hiding(n_columns=200).kept(2000).double().mean(1)
    # Each row's share is its own, drawn evenly between the bounds.
    expected = LEAST_HIDDEN + (MOST_HIDDEN - LEAST_HIDDEN) * torch.linspace(0, 1, 2000).double()
    assert ((1 - kept).sort().values - expected).abs().max() < 0.1


def test_hiding_when_patterns_then_half_the_rows_have_one():
    patterns = torch.rand(2, 40, generator=generator(5)) > 0.5
    kept = hiding(patterns.tolist(), n_columns=40).kept(4000)
    shares = [(kept == pattern).all(1).double().mean().item() for pattern in patterns]
    # Four standard deviations of a share of a quarter are 0.027.
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_hiding_when_column_is_encoded_in_several_then_all_are_hidden_together():
    kept = hiding(n_columns=3, column_of_D=torch.tensor([0, 1, 1, 1, 2])).kept(100)
    assert torch.equal(kept[:, 1], kept[:, 2]) and torch.equal(kept[:, 1], kept[:, 3])
    assert not torch.equal(kept[:, 0], kept[:, 1])


# --- the table ---------------------------------------------------------------------------------------------------


def test_table_when_hiding_then_never_shows_what_is_missing(rows, features):
    x, present = rows
    seen, _ = CompletionTable(x, present, features, hiding()).slice(0, N)
    lacks = seen[:, D : 2 * D] == 1
    assert lacks[~present].all()
    assert 0.2 < lacks[present].double().mean() < 0.5


def test_table_when_hiding_then_hidden_cells_do_not_reach_the_features(rows, features):
    x, present = rows
    seen, _ = CompletionTable(x, present, features, hiding(seed=4)).slice(0, N)
    lacks = seen[:, D : 2 * D] == 1
    other = torch.where(lacks, 50.0, x)
    again, _ = CompletionTable(other, present, features, hiding(seed=4)).slice(0, N)
    assert torch.equal(seen, again)


def test_table_when_rows_are_taken_or_sliced_then_the_same(rows, features):
    x, present = rows
    for hides in (lambda: None, hiding):
        taken, _ = CompletionTable(x, present, features, hides()).take(torch.arange(10, 60))
        sliced, _ = CompletionTable(x, present, features, hides()).slice(10, 60)
        assert torch.equal(taken, sliced)


def test_table_when_taken_in_any_order_then_rows_follow(rows, features):
    table = CompletionTable(*rows, features)
    order = torch.randperm(N, generator=generator(6))
    torch.testing.assert_close(table.take(order)[0], table.slice(0, N)[0][order], rtol=1e-5, atol=1e-6)
    assert len(table) == N and table.n_columns == features.n_features


def test_table_when_taken_then_rows_stay_as_they_are(rows, features):
    x, present = rows
    before = x.clone(), present.clone()
    CompletionTable(x, present, features, hiding()).take(torch.arange(N))
    assert torch.equal(x, before[0]) and torch.equal(present, before[1])


# --- copies ------------------------------------------------------------------------------------------------------


def test_copies_when_taken_then_each_is_its_row_with_some_cells_hidden(rows, features):
    x, present = rows
    table = CompletionTable(x, present, features, hiding())
    at = torch.arange(N).repeat(20)
    taken, _ = HiddenCopies(table, hidden_copies(table, MANY), generator()).take(at)
    is_hidden = taken[:, D : 2 * D].bool()
    assert is_hidden[~present[at]].all() and 0.3 < is_hidden[present[at]].float().mean() < 0.4
    torch.testing.assert_close(taken, features(x[at], ~is_hidden))
    # A row does not always lose the same cells.
    assert len(taken.view(20, N, -1)[:, 0].unique(dim=0)) > 3


def test_copies_when_generators_are_alike_then_the_same_are_taken(rows, features):
    table = CompletionTable(*rows, features, hiding())
    copies = hidden_copies(table, MANY)
    one, same, other = (HiddenCopies(table, copies, generator(seed)).slice(0, N)[0] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_copies_when_there_is_no_room_or_use_for_enough_then_none(rows, features, monkeypatch):
    table = CompletionTable(*rows, features, hiding())
    assert len(hidden_copies(table, 10 * COPY_USES * N).present_CND) == 10
    assert hidden_copies(table, COPY_USES * N - 1) is None
    # Somewhat fewer may find room, but not many fewer.
    least = math.ceil(10 * COPY_USES / MOST_COPY_USES)
    monkeypatch.setattr(completion, "COPIED_NUMBERS", least * N * features.n_completed)
    assert len(hidden_copies(table, 10 * COPY_USES * N).present_CND) == least < 10
    monkeypatch.setattr(completion, "COPIED_NUMBERS", (least - 1) * N * features.n_completed)
    assert hidden_copies(table, 10 * COPY_USES * N) is None
