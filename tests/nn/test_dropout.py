import pytest
import torch

from skdl.nn.dropout import DropoutMasks


def generators(n, first=0):
    return [torch.Generator().manual_seed(first + k) for k in range(n)]


def all_masks(masks, lengths, batch_size):
    """Every job's masks of one epoch, layer by layer: ``[k][layer]`` of shape (rows, units)."""
    steps = []
    for start in range(0, max(lengths), batch_size):
        k = sum(length > start for length in lengths)
        n_rows = min(batch_size, max(lengths) - start)
        steps.append([mask.clone() for mask in masks.draw(start, k, n_rows)])
    return [
        [torch.cat([step[i][k] for step in steps if len(step[i]) > k])[:length] for i in range(len(steps[0]))]
        for k, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(("rate", "n_kept"), [(1 - 0.6 / 65_536, 1), (1 - 1.6 / 65_536, 2)])
def test_dropout_when_nearly_all_units_drop_then_the_mean_stays(rate, n_kept):
    masks = DropoutMasks(generators(1), [rate], [100_000], (100,), 100_000, torch.float32)
    mean = masks.draw(0, 1, 100_000)[0].double().mean().item()
    assert mean == pytest.approx(1, abs=4 / (1e7 * n_kept / 65_536) ** 0.5)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_dropout__then_units_drop_at_the_rate_and_the_mean_stays(rate):
    masks = DropoutMasks(generators(2), [rate, 0.3], [500, 500], (40, 20), 100, torch.float64)
    for layer in all_masks(masks, [500, 500], 100)[0]:
        kept = layer > 0
        drawn = round(rate * DropoutMasks.LEVELS) / DropoutMasks.LEVELS
        torch.testing.assert_close(layer[kept], torch.full_like(layer[kept], 1 / (1 - drawn)))
        sigma = (rate * (1 - rate) / layer.numel()) ** 0.5
        assert abs(kept.double().mean().item() - (1 - rate)) <= 4 * sigma
        # No unit and no row is left out for good.
        if rate < 0.9:
            assert kept.any(0).all() and kept.any(1).all()


def test_dropout__when_rate_is_almost_one__then_almost_all_units_drop():
    masks = DropoutMasks(generators(1), [1 - 1e-7], [1000], (50,), 1000, torch.float64)
    assert (masks.draw(0, 1, 1000)[0] > 0).double().mean().item() < 0.001


@pytest.mark.parametrize("batch_size", [16, 64])
@pytest.mark.parametrize("chunk", [None, 300], ids=["one_chunk", "chunks"])
def test_dropout__when_in_company__then_masks_are_those_of_the_lone_job(monkeypatch, chunk, batch_size):
    if chunk:
        monkeypatch.setattr(DropoutMasks, "CHUNK", chunk)
    lengths, rates, hidden = [70, 64, 33, 5], [0.5, 0.0, 0.2, 0.5], (7, 3)
    together = DropoutMasks(generators(4), rates, lengths, hidden, batch_size, torch.float32)
    lone = [
        DropoutMasks(generators(1, k), rates[k : k + 1], lengths[k : k + 1], hidden, batch_size, torch.float32)
        for k in range(4)
    ]
    for _ in range(3):
        company = all_masks(together, lengths, batch_size)
        for k in range(4):
            (alone,) = all_masks(lone[k], lengths[k : k + 1], batch_size)
            for one, other in zip(company[k], alone, strict=True):
                assert torch.equal(one, other)


def test_dropout__when_drawn_again__then_new_masks_that_agree_by_chance_only():
    masks = DropoutMasks(generators(1), [0.5], [200], (50,), 100, torch.float32)
    first, second = ((all_masks(masks, [200], 100)[0][0] > 0).double() for _ in range(2))
    assert (first == second).double().mean().item() == pytest.approx(0.5, abs=0.03)
    # Rows and units are independent of their neighbours as well.
    assert (first[1:] == first[:-1]).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (first[:, 1:] == first[:, :-1]).double().mean().item() == pytest.approx(0.5, abs=0.03)
