import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skdl.tasks.losses import CustomLoss, Huber, Quantile, Quantiles
from skdl.tasks.regression import QuantilesTask, RegressionTask

RNG = np.random.default_rng(0)
TARGETS = {
    "plain": RNG.normal(3, 2, 50),
    "huge": RNG.normal(0, 1, 50) * 1e300,
    "huge_offset": 1e300 + RNG.normal(0, 1, 50) * 1e290,
    "tiny": RNG.normal(0, 1, 50) * 1e-290,
    "offset": 1e9 + RNG.normal(0, 1e-3, 50),
    "several": RNG.normal(0, 1, (50, 3)) * [1e300, 1, 1e-200],
    "one_column": RNG.normal(0, 1, (50, 1)),
    "integers": RNG.integers(-(2**40), 2**40, 50),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
def test_values__when_encoded_and_decoded__then_themselves(y, dtype):
    task = RegressionTask("squared_error").fit(y)
    encoded = task.encode(y, dtype)
    assert encoded.shape == (50, y.reshape(50, -1).shape[1]) and encoded.dtype == dtype
    decoded = task.decode(encoded.numpy())
    assert decoded.shape == y.shape and decoded.dtype == np.float64
    rounding = 1e-6 if dtype == torch.float32 else 1e-14
    atol = rounding * np.std(y / np.abs(y).max(axis=0), axis=0) * np.abs(y).max(axis=0)
    assert np.all(np.abs(decoded - y) <= 10 * atol + 1e-15 * np.abs(y))


@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
def test_encoded__then_mean_is_zero_and_deviation_one(y):
    encoded = RegressionTask("huber").fit(y).encode(y, torch.float64).numpy()
    # With an offset of 1e12 deviations the mean itself is rounded to 1e-4 of a deviation.
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(encoded.std(axis=0), 1, rtol=1e-4)


@given(
    y=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=6),
        elements=st.floats(-1e300, 1e300, allow_subnormal=False).map(lambda v: v if abs(v) > 1e-250 else 0.0),
    )
)
@settings(deadline=None, max_examples=150, derandomize=True, database=None)
def test_values__when_any_finite_numbers__then_encoded_finite_and_decoded_close(y):
    task = RegressionTask("squared_error").fit(y)
    encoded = task.encode(y, torch.float32)
    assert encoded.isfinite().all()
    decoded = task.decode(encoded.numpy())
    assert np.all(np.abs(decoded - y) <= 1e-5 * np.abs(y).max(axis=0))


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e300, 1e-300])
@pytest.mark.parametrize("weighted", [False, True])
def test_constant__when_encoded__then_zero_and_decoded_exactly(value, weighted):
    y = np.full(7, value)
    task = RegressionTask("squared_error").fit(y, np.arange(1.0, 8) if weighted else None)
    encoded = task.encode(y, torch.float32)
    assert not encoded.any()
    np.testing.assert_array_equal(task.decode(encoded.numpy()), y)


def test_fit__when_weighted__then_as_if_rows_were_repeated():
    y, weight = RNG.normal(5, 2, (20, 2)), RNG.integers(1, 4, 20)
    weighted = RegressionTask("squared_error").fit(y, weight)
    repeated = RegressionTask("squared_error").fit(np.repeat(y, weight, axis=0))
    np.testing.assert_allclose(weighted.location, repeated.location)
    np.testing.assert_allclose(weighted.scale, repeated.scale)


@pytest.mark.parametrize("y", [np.array([0, 3, 1, 0]), np.array([0.0, 1e300]), np.zeros(3)])
def test_poisson__when_encoded__then_mean_is_one_and_zero_stays_zero(y):
    task = RegressionTask("poisson").fit(y)
    encoded = task.encode(y, torch.float64).numpy()[:, 0]
    if y.any():
        assert encoded.mean() == pytest.approx(1)
    assert np.array_equal(encoded == 0, y == 0)


def test_poisson__when_decoded__then_exponential_in_units_of_y():
    task = RegressionTask("poisson").fit(np.array([2.0, 4.0]))
    np.testing.assert_allclose(task.decode(np.array([[0.0], [np.log(2)]])), [3, 6])


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 1e300, 5e-324])
@pytest.mark.parametrize("weighted", [False, True])
def test_poisson__when_constant__then_decoded_exactly_until_it_is_not(value, weighted):
    y = np.column_stack([np.full(7, value), np.arange(7.0)])
    task = RegressionTask("poisson").fit(y, np.arange(1.0, 8) if weighted else None)
    outputs = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_array_equal(task.decode(outputs)[:, 0], value)
    np.testing.assert_allclose(task.decode(outputs)[:, 1], np.exp(outputs[:, 1]) * task.scale[1])
    task.update_constant_targets(y)
    assert task.is_constant.tolist() == [True, False]
    task.update_constant_targets(y[:, ::-1])
    np.testing.assert_allclose(task.decode(outputs), np.exp(outputs) * task.scale)


def test_poisson__when_target_is_negative__then_refused():
    with pytest.raises(ValueError, match="targets that are not negative"):
        RegressionTask("poisson").fit(np.array([1.0, -1.0]))
    task = RegressionTask("poisson").fit(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="targets that are not negative"):
        task.encode(np.array([-1.0]), torch.float32)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_combine__then_values_are_the_mean_of_the_members(loss):
    task = RegressionTask(loss).fit(np.array([[2.0, 10.0], [4.0, 30.0]]))
    outputs = RNG.normal(size=(4, 7, 2))
    expected = np.mean([task.decode(output) for output in outputs], axis=0)
    np.testing.assert_allclose(task.decode(task.combine(outputs)), expected)


def test_encode__when_number_of_targets_differs__then_error():
    task = RegressionTask("squared_error").fit(np.ones((3, 2)))
    with pytest.raises(ValueError, match="y has 1 targets, but the model was fitted on 2"):
        task.encode(np.ones(3), torch.float32)


def test_loss__then_name_or_function_becomes_an_object():
    assert RegressionTask("huber").loss == Huber()
    assert RegressionTask(torch.dist).loss == CustomLoss(torch.dist)


def test_quantiles__when_encoded_and_decoded__then_sorted_and_in_units_of_y():
    y = np.array([[1.0, 10], [2, 30], [3, 50]])
    task = QuantilesTask((0.1, 0.9)).fit(y)
    assert task.n_outputs == 4 and task.encode(y, torch.float64).shape == (3, 2)
    # The second target's quantiles cross.
    decoded = task.decode(np.array([[-1.0, 1, 1, -1]]))
    spread = y.std(axis=0)
    expected = np.stack([y.mean(axis=0) - spread, y.mean(axis=0) + spread], axis=1)
    np.testing.assert_allclose(decoded, expected[None])
    assert QuantilesTask((0.1, 0.9)).fit(y[:, 0]).decode(np.zeros((5, 2))).shape == (5, 2)


def test_quantiles__then_loss_is_the_mean_of_each_quantiles_loss():
    levels = (0.1, 0.5, 0.9)
    output, target = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, 2, 5, dtype=torch.float64)
    loss, gradient = Quantiles(levels).loss_gradient(output, target, {})
    parts = [
        Quantile().loss_gradient(
            output[:, q::3], target, {"quantile": torch.full((2, 1, 1), level, dtype=torch.float64)}
        )
        for q, level in enumerate(levels)
    ]
    torch.testing.assert_close(loss, torch.stack([part[0] for part in parts]).mean(0))
    for q, part in enumerate(parts):
        torch.testing.assert_close(gradient[:, q::3], part[1] / 3)
