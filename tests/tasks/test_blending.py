"""Weights of a blend."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import nnls

from skdl.tasks.blending import blend_weights
from skdl.tasks.losses import BinaryCrossEntropy, CrossEntropy, Huber, Quantiles, SquaredError


def noisy(scales, n=400, seed=0):
    rng = np.random.RandomState(seed)
    y = rng.normal(size=(n, 2))
    return y, [y + scale * rng.normal(size=y.shape) for scale in scales]


def test_squared_errors_give_non_negative_least_squares():
    y, outputs = noisy([0.5, 1.0])
    outputs.append(-y)
    weights = blend_weights(outputs, torch.as_tensor(y), SquaredError(), {})
    expected, _ = nnls(np.stack([o.ravel() for o in outputs], axis=1), y.ravel())
    assert_allclose(weights, expected, atol=1e-4)
    assert weights[2] == 0


def test_weights_are_of_the_distance_from_the_base():
    y, outputs = noisy([0.5, 1.0])
    base = np.full((400, 1), 100.0)
    moved = blend_weights([o + 100 for o in outputs], torch.as_tensor(y + 100), SquaredError(), {}, base)
    assert_allclose(moved, blend_weights(outputs, torch.as_tensor(y), SquaredError(), {}), atol=1e-5)


def test_samples_of_no_weight_do_not_count():
    y, outputs = noisy([0.5, 1.0])
    wrong = [np.vstack([o, rng]) for o, rng in zip(outputs, (np.ones((50, 2)) * 9, -np.ones((50, 2)) * 9), strict=True)]
    weight = np.r_[np.ones(400), np.zeros(50)]
    target = torch.as_tensor(np.vstack([y, np.zeros((50, 2))]))
    expected = blend_weights(outputs, torch.as_tensor(y), SquaredError(), {})
    assert_allclose(blend_weights(wrong, target, SquaredError(), {}, weight=weight), expected, atol=1e-6)


@pytest.mark.parametrize("loss", [SquaredError(), Huber(), Quantiles((0.5,))])
def test_a_useless_part_has_next_to_no_weight(loss):
    y, outputs = noisy([0.1, 0.1])
    outputs[1] = np.random.RandomState(1).normal(size=y.shape)
    weights = blend_weights(outputs, torch.as_tensor(y), loss, {})
    assert weights[0] > 0.95 and weights[1] < 0.05


def test_labels_make_scores_of_any_scale_logits():
    rng = np.random.RandomState(0)
    logits = rng.normal(size=(2000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    (weight,) = blend_weights([logits / 7], torch.as_tensor(labels), CrossEntropy(), {})
    assert weight == pytest.approx(7, rel=0.15)
    binary = rng.uniform(size=2000) < 1 / (1 + np.exp(-logits[:, 0]))
    target = torch.as_tensor(binary[:, None].astype(float))
    (weight,) = blend_weights([logits[:, :1] * 3], target, BinaryCrossEntropy(), {})
    assert weight == pytest.approx(1 / 3, rel=0.15)
