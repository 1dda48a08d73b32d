"""The orthogonal factor against singular value decompositions."""

import pytest
import torch

from skdl.engine.orthogonal import N_ITERATIONS, POLYNOMIAL, orthogonalized


def matrices(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 3, 8), (3, 8, 3), (2, 1, 4), (2, 4, 1)])
def test_orthogonalized__then_the_polynomial_of_each_singular_value(shape):
    x = matrices(*shape)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    a, b, c = POLYNOMIAL
    for _ in range(N_ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalized(x), u @ s.diag_embed() @ vt, rtol=0, atol=1e-10)


def test_orthogonalized__when_single_precision__then_singular_values_are_near_1():
    values = torch.linalg.svdvals(orthogonalized(matrices(2, 32, 288, dtype=torch.float32)))
    assert values.min() > 0.65 and values.max() < 1.25


def test_orthogonalized__when_scaled__then_the_same_and_zeros_stay_zeros():
    x = matrices(2, 4, 6)
    torch.testing.assert_close(orthogonalized(1e-6 * x), orthogonalized(x))
    assert torch.equal(orthogonalized(0 * x), 0 * x)
