"""The closed-form path beside recurrent networks."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skdl.closed_form import skip
from skdl.closed_form.skip import SkipPath, StepFeatures
from skdl.data.folds import Fold
from skdl.data.series.row_layout import Parts, RowLayout

LAYOUT = RowLayout(n_channels=1, n_covariates=0)


def rows(n=200, n_steps=6, seed=0):
    """Encoded rows of one channel, and a target that is linear in their steps."""
    rng = np.random.RandomState(seed)
    steps = rng.normal(size=(n, n_steps))
    tail = np.tile([0.0, 1.0, n_steps], (n, 1))
    target = steps @ rng.normal(size=(n_steps, 2))
    return torch.from_numpy(np.hstack([steps, tail])), torch.from_numpy(target)


def folds(n=200):
    rows = np.arange(n)
    return [Fold(np.setdiff1d(rows, part), part) for part in np.array_split(rows, 4)]


def fitted(x_BD, target_BO, weight=None, **options):
    path = SkipPath(["linear"], LAYOUT, 6, None, with_steps=True, **options)
    return path, path.fit_predict_held_out(x_BD, target_BO, folds(), weight, torch.Generator().manual_seed(0))


def test_the_last_steps_stand_one_by_one():
    series = torch.arange(8.0).view(2, 1, 4)
    parts = Parts(series, torch.ones(2, 1), torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([4, 2]))
    assert_array_equal(StepFeatures(3).transform(parts), [[1, 2, 3, 1], [0, 4, 5, 1]])


def test_many_steps_are_averaged(monkeypatch):
    monkeypatch.setattr(skip, "MAX_STEP_COLUMNS", 2)
    parts = Parts(torch.arange(4.0).view(1, 1, 4), torch.ones(1, 0), *torch.ones(2, 1, 1), torch.tensor([4]))
    assert_array_equal(StepFeatures(4).transform(parts), [[0.5, 2.5]])


def test_a_linear_target_is_found_and_held_out_rows_are_not_seen():
    x_BD, target_BO = rows()
    path, held_out = fitted(x_BD, target_BO)
    assert_allclose(path.outputs(x_BD), target_BO, atol=0.01)
    assert_allclose(held_out, target_BO, atol=0.01)
    # By so little that the penalty stays the same.
    moved = target_BO.clone()
    moved[:50] += 0.01
    assert_allclose(fitted(x_BD, moved)[1][:50], held_out[:50], atol=1e-12)
    assert np.abs(fitted(x_BD, moved)[1][50:] - held_out[50:]).min() > 1e-6


@pytest.mark.parametrize("weighted", [False, True])
def test_levels_hold_their_shares(weighted):
    x_BD, target_BO = rows()
    rng = np.random.RandomState(1)
    noise = torch.from_numpy(rng.exponential(size=(200, 2)))
    weight = np.where(noise[:, 0] > 1, 3.0, 1.0) if weighted else None
    levels = (0.2, 0.5, 0.9)
    _, held_out = fitted(x_BD, target_BO + noise, weight, levels=levels)
    below_BTQ = (target_BO + noise).numpy()[:, :, None] <= held_out.reshape(200, 2, 3)
    assert_allclose(np.average(below_BTQ, axis=0, weights=weight), np.tile(levels, (2, 1)), atol=0.02)


def test_outputs_come_in_chunks(monkeypatch):
    x_BD, target_BO = rows()
    path, _ = fitted(x_BD, target_BO)
    whole = path.outputs(x_BD)
    monkeypatch.setattr(skip, "CHUNK_ROWS", 7)
    assert_allclose(path.outputs(x_BD), whole, rtol=1e-12)
