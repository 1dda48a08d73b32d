import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdl.engine.schedules import SHAPES, PlateauRule, Schedule

FALLING = ["cosine", "step", "exponential"]


def factors(kind, n_steps, warmup=0.0):
    return Schedule(kind, warmup).factors(0, n_steps, n_steps)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("constant", {0: 1, 300: 1, 999: 1}),
        ("cosine", {0: 1, 250: (1 + np.sqrt(0.5)) / 2, 500: 0.5, 750: (1 - np.sqrt(0.5)) / 2}),
        ("one_cycle", {0: 1 / 25, 150: (1 + 1 / 25) / 2, 300: 1, 650: (1 + 1e-4) / 2}),
        ("exponential", {0: 1, 500: 0.1, 250: np.sqrt(0.1)}),
        ("plateau", {0: 1, 999: 1}),
    ],
)
def test_factors__at_known_points(kind, points):
    values = factors(kind, 1000)
    for step, expected in points.items():
        assert values[step] == pytest.approx(expected)


@pytest.mark.parametrize("n_steps", [3, 30, 99, 300, 3000])
def test_step__then_a_tenth_after_each_third(n_steps):
    expected = np.repeat([1, 0.1, 0.01], n_steps // 3)
    np.testing.assert_allclose(factors("step", n_steps), expected)


@pytest.mark.parametrize("kind", FALLING)
def test_falling__then_monotone_from_one(kind):
    values = factors(kind, 777)
    assert values[0] == 1
    assert (np.diff(values) <= 0).all()


def test_one_cycle__then_up_and_down_once():
    values = factors("one_cycle", 1000)
    peak = values.argmax()
    assert peak == 300
    assert (np.diff(values[: peak + 1]) > 0).all() and (np.diff(values[peak:]) < 0).all()
    assert values[-1] == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize("kind", SHAPES)
def test_warmup__then_a_straight_line_to_the_shape(kind):
    values = factors(kind, 1000, 0.1)
    rising = values[:100]
    np.testing.assert_allclose(np.diff(rising), rising[0])
    assert rising[0] > 0
    np.testing.assert_allclose(values[100:], factors(kind, 900))


@given(
    kind=st.sampled_from(sorted(SHAPES)),
    warmup=st.floats(0, 0.99),
    n_epochs=st.integers(1, 7),
    n_steps=st.integers(1, 9),
)
@settings(deadline=None, derandomize=True, database=None)
def test_factors__when_asked_epoch_by_epoch__then_as_at_once_and_between_zero_and_one(kind, warmup, n_epochs, n_steps):
    schedule, total = Schedule(kind, warmup), n_epochs * n_steps
    pieces = [schedule.factors(e * n_steps, n_steps, total) for e in range(n_epochs)]
    values = np.concatenate(pieces)
    np.testing.assert_array_equal(values, schedule.factors(0, total, total))
    assert (values > 0).all() and (values <= 1).all()


def test_plateau__then_halves_after_five_epochs_without_a_fall():
    rule = PlateauRule()
    seen = []
    for loss in [5, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3]:
        rule.update(loss)
        seen.append(rule.factor)
    assert seen == [1] * 6 + [0.5] * 6 + [0.25]
