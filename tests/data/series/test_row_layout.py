"""Rows that series are encoded as."""

import torch

from skdl.data.series.row_layout import N_TAIL, Denormalization, RowLayout


def rows(n_steps=5):
    """Four series of two channels with one number beside them, level, spread and length."""
    series = torch.randn(4, 2 * n_steps, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tail = torch.tensor([[7.0, 2.0, 1.5, length] for length in (5, 4, 3, 5)], dtype=torch.float64)
    assert tail.shape[1] == 1 + N_TAIL
    return torch.cat([series, tail], dim=1)


def test_parts_are_views_of_rows_of_any_number_of_steps():
    layout = RowLayout(2, 1)
    for n_steps in (5, 9):
        x = rows(n_steps)
        parts = layout.parts(x)
        assert layout.n_steps(x.shape[1]) == n_steps
        assert parts.series_BCT.shape == (4, 2, n_steps) and parts.lengths_B.tolist() == [5, 4, 3, 5]
        assert torch.equal(parts.series_BCT[:, 1], x[:, n_steps : 2 * n_steps])
        beside_level_and_spread = [part.unique().tolist() for part in parts[1:4]]
        assert beside_level_and_spread == [[7.0], [2.0], [1.5]]
        parts.series_BCT.zero_()
        assert (x[:, : 2 * n_steps] == 0).all()


def test_reversal_and_its_inverse():
    denormalization, parts = Denormalization((2.0, 0.5), (1.0, -1.0)), RowLayout(2, 1).parts(rows())
    output = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denormalization.invert(denormalization.apply(output, parts), parts), output)
    # Several outputs of a target share its way back.
    doubled = denormalization.apply(output.repeat_interleave(2, dim=1), parts)
    torch.testing.assert_close(doubled, denormalization.apply(output, parts).repeat_interleave(2, dim=1))
