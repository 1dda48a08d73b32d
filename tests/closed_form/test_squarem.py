"""Iterations that are extrapolated, against where they lead."""

import math

import pytest
import torch

from skdl.closed_form.squarem import squarem

END = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
START = torch.zeros(3, dtype=torch.float64)


class Steps:
    """An iteration that goes a share of the way to the end in each direction, and how often it was asked."""

    def __init__(self, *shares, objective=lambda theta: 0.0):
        self.shares, self.objective, self.n_calls = torch.tensor(shares), objective, 0

    def __call__(self, theta):
        self.n_calls += 1
        return theta + self.shares * (END - theta), self.objective(theta)


def nearness(theta):
    return -float((theta - END).square().sum())


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_squarem_when_all_steps_shrink_alike_then_reached_at_once(share):
    steps = Steps(share, share, share, objective=nearness)
    torch.testing.assert_close(squarem(steps, START, 1e-9, 300), END)
    assert steps.n_calls <= 6


def test_squarem_when_steps_shrink_at_several_rates_then_reached_in_a_few():
    steps = Steps(0.02, 0.1, 0.6, objective=nearness)
    found = squarem(steps, START, 1e-7, 300)
    torch.testing.assert_close(found, END, atol=1e-3, rtol=0)
    # Without extrapolation it takes 330.
    assert steps.n_calls < 60


def test_squarem_when_a_slow_direction_hides_behind_a_fast_one_then_reached_in_both():
    steps = Steps(0.01, 0.9, 0.9, objective=nearness)
    found = squarem(steps, torch.tensor([0.9, 98.0, 103.0], dtype=torch.float64), 1e-6, 300)
    torch.testing.assert_close(found, END, atol=2e-3, rtol=0)


def test_squarem_when_objective_falls_then_not_extrapolated():
    def objective(theta):
        return -math.inf if abs(theta[0]) > 0.5 else float(theta[0])

    found = squarem(Steps(0.02, 0.02, 0.02, objective=objective), START, 1e-6, 3)
    torch.testing.assert_close(found, END * (1 - 0.98**2), check_dtype=False)


def test_squarem_when_there_is_nothing_at_the_extrapolation_then_plain_steps():
    def objective(theta):
        if theta[0] > 0.5:
            raise torch.linalg.LinAlgError
        return 0.0

    found = squarem(Steps(0.02, 0.02, 0.02, objective=objective), START, 1e-6, 3)
    torch.testing.assert_close(found, END * (1 - 0.98**2), check_dtype=False)


def test_squarem_when_it_starts_at_the_end_then_stays():
    steps = Steps(0.5, 0.5, 0.5)
    assert torch.equal(squarem(steps, END, 1e-9, 300), END) and steps.n_calls == 3
