"""Where the parameters of a network lie in its row of numbers."""

import pytest
import torch

from skdl.nn.network import Slot


def test_views_of_convolutions_have_their_channels_last():
    row = torch.arange(200.0)
    view = Slot(10, (4, 3, 2, 5)).view(row)
    assert view.shape == (4, 3, 2, 5) and view.is_contiguous(memory_format=torch.channels_last)
    view[1, 2, 1, 4] = -1
    assert row[10 + ((1 * 2 + 1) * 5 + 4) * 3 + 2] == -1
    assert Slot(3, (2, 4)).view(row).tolist() == [[3, 4, 5, 6], [7, 8, 9, 10]]


@pytest.mark.parametrize("shape", [(), (5,), (2, 4), (2, 3, 4), (2, 3, 2, 4)], ids=str)
def test_a_view_of_several_rows_is_the_views_of_each(shape):
    rows = torch.arange(180.0).view(3, 60)
    slot = Slot(7, shape)
    views = slot.view(rows)
    assert torch.equal(views, torch.stack([slot.view(row) for row in rows]))
    views.fill_(-1)
    assert (rows[:, 7 : slot.stop] == -1).all() and (rows == -1).sum() == 3 * (slot.stop - 7)
