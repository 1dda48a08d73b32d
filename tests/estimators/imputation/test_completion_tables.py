"""What is hidden of rows with holes while a network is trained to complete them."""

import math

import numpy as np
import pytest
import torch

from skdl.closed_form.completion import CellFeatures
from skdl.closed_form.gaussian import fit_gaussian
from skdl.estimators.imputation import completion_tables
from skdl.estimators.imputation.completion_tables import (
    COPY_USES,
    MAX_COPY_USES,
    MAX_HIDDEN_SHARE,
    MIN_HIDDEN_SHARE,
    CompletionTable,
    HiddenCopies,
    Hiding,
    hidden_copies,
)

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


# --- hiding ------------------------------------------------------------------------------------------------------


def test_hiding_when_drawn_in_parts_then_as_at_once():
    pattern = [[True, False, True, True, False], [False, True, True, True, True]]
    at_once, in_parts = hiding(pattern).kept(60), hiding(pattern)
    assert torch.equal(torch.cat([in_parts.kept(n) for n in (1, 9, 50)]), at_once)


def test_hiding_when_no_patterns_then_rows_lose_every_share():
    kept = hiding(n_columns=200).kept(2000).double().mean(1)
    # Each row's share is its own, drawn evenly between the bounds.
    expected = MIN_HIDDEN_SHARE + (MAX_HIDDEN_SHARE - MIN_HIDDEN_SHARE) * torch.linspace(0, 1, 2000).double()
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
    least = math.ceil(10 * COPY_USES / MAX_COPY_USES)
    monkeypatch.setattr(completion_tables, "COPIED_NUMBERS", least * N * features.n_completed)
    assert len(hidden_copies(table, 10 * COPY_USES * N).present_CND) == least < 10
    monkeypatch.setattr(completion_tables, "COPIED_NUMBERS", (least - 1) * N * features.n_completed)
    assert hidden_copies(table, 10 * COPY_USES * N) is None
