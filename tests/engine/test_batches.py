import pytest
import torch

from skdl.data.table import DenseTable
from skdl.engine.batches import Batches, DropoutMasks, padded, tables_on
from skdl.engine.job import Samples

LENGTHS = [(7,), (10, 10, 10), (33, 32, 32, 17, 5, 1)]


def generators(n, first=0):
    return [torch.Generator().manual_seed(first + k) for k in range(n)]


def make_samples(lengths, *, shared=True, whole=False, weighted=False, target_axes=1):
    """Samples whose table holds the row's number and whose target is ten times that."""
    samples = []
    table = DenseTable(torch.arange(50.0)[:, None], torch.arange(50)[:, None])
    for k, length in enumerate(lengths):
        rows = torch.randperm(50, generator=torch.Generator().manual_seed(k))[:length]
        if not shared or whole:
            values = table.values[rows] if whole else table.values.clone()
            own = DenseTable(values, values.long())
        else:
            own = table
        target = 10 * table.values[rows].expand(-1, 2) if target_axes == 2 else 10 * table.values[rows, 0]
        weight = 1 + rows.to(torch.float64) if weighted else None
        samples.append(Samples(own, target, weight, None if whole else rows))
    return samples


def real_rows(batch, k):
    return slice(None) if batch.rows_KB1 is None else batch.rows_KB1[k, :, 0] > 0


@pytest.mark.parametrize("batch_size", [4, 16, 100])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(
    "kind",
    [{}, {"shared": False}, {"whole": True}, {"weighted": True}, {"target_axes": 2}],
    ids=["shared", "own", "whole", "weighted", "two_targets"],
)
def test_epoch__then_every_row_comes_once_and_padding_weighs_nothing(kind, lengths, batch_size):
    samples = make_samples(lengths, **kind)
    batches = Batches(samples, batch_size, "cpu", torch.float64)
    seen = [[] for _ in lengths]
    n_steps = 0
    for step, batch in enumerate(batches.epoch(generators(len(lengths)))):
        n_steps += 1
        present = [k for k, length in enumerate(lengths) if length > step * batch_size]
        assert len(batch.weight_K1B) == len(present) == len(batch.x_KBD) == len(batch.target_KTB)
        for k in present:
            n_real = min(batch_size, lengths[k] - step * batch_size)
            real = real_rows(batch, k)
            rows = batch.x_KBD[k, real, 0]
            assert len(rows) == n_real
            seen[k].extend(rows.tolist())
            assert torch.equal(batch.codes_KBE[k, real, 0], rows.long())
            target = batch.target_KTB[k, :, real].t()
            assert torch.equal(target, 10 * rows[:, None].expand_as(target))
            weight = 1 + rows.double() if "weighted" in kind else torch.ones(n_real, dtype=torch.float64)
            torch.testing.assert_close(batch.weight_K1B[k, 0, real], weight / n_real)
            assert batch.weight_K1B[k].count_nonzero() == n_real
    assert n_steps == -(-max(lengths) // batch_size)
    for k, sample in enumerate(samples):
        rows = sample.table.values[:, 0] if sample.rows is None else sample.rows.float()
        assert sorted(seen[k]) == sorted(rows.tolist())


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_epoch__when_in_company__then_each_job_keeps_its_own_order(lengths):
    samples = make_samples(lengths)
    company = Batches(samples, 8, "cpu", torch.float32)
    lone = [Batches([sample], 8, "cpu", torch.float32) for sample in samples]
    together, apart = generators(len(lengths)), generators(len(lengths))
    for _ in range(2):
        steps = list(company.epoch(together))
        for k, (batches, generator) in enumerate(zip(lone, apart, strict=True)):
            for step, batch in zip(steps, batches.epoch([generator]), strict=False):
                assert torch.equal(step.x_KBD[k, real_rows(step, k)], batch.x_KBD[0])


def test_epoch__when_repeated__then_order_changes_and_seed_reproduces_it():
    batches = Batches(make_samples((40,)), 40, "cpu", torch.float32)
    orders = []
    for seed in (0, 0, 1):
        (generator,) = generators(1, seed)
        orders.append([next(batches.epoch([generator])).x_KBD.clone() for _ in range(2)])
    assert torch.equal(orders[0][0], orders[1][0]) and torch.equal(orders[0][1], orders[1][1])
    assert not torch.equal(orders[0][0], orders[0][1])
    assert not torch.equal(orders[0][0], orders[2][0])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("kind", [{}, {"shared": False}, {"whole": True}, {"weighted": True}], ids=str)
def test_in_order__then_rows_stand_in_their_own_order_with_their_own_weight(kind, lengths):
    samples = make_samples(lengths, **kind)
    batches = list(Batches(samples, 8, "cpu", torch.float64).in_order())
    for k, sample in enumerate(samples):
        own = [batch for batch in batches if len(batch.x_KBD) > k]
        rows = torch.cat([batch.x_KBD[k, real_rows(batch, k), 0] for batch in own])
        weight = torch.cat([batch.weight_K1B[k, 0] for batch in own])
        expected = sample.table.values[:, 0] if sample.rows is None else sample.rows.float()
        assert torch.equal(rows, expected)
        assert torch.equal(
            weight[: len(sample)], torch.ones(len(sample)).double() if sample.weight is None else sample.weight
        )
        assert not weight[len(sample) :].any()


def test_in_order__when_whole_shared_table__then_every_job_sees_it():
    table = DenseTable(torch.arange(5.0)[:, None])
    samples = [Samples(table, torch.arange(5.0) * k) for k in range(3)]
    (batch,) = Batches(samples, 8, "cpu", torch.float32).in_order()
    assert torch.equal(batch.x_KBD[..., 0], torch.arange(5.0).expand(3, -1))
    assert torch.equal(batch.target_KTB[:, 0], torch.arange(5.0) * torch.arange(3.0)[:, None])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_mean_losses__then_every_row_counts_once_by_its_weight(lengths):
    samples = make_samples(lengths)
    batches = Batches(samples, 8, "cpu", torch.float64)
    generators = [torch.Generator().manual_seed(k) for k in range(len(lengths))]
    losses = torch.full((len(lengths), max(lengths)), 99.0, dtype=torch.float64)
    for batch in batches.epoch(generators):
        k, n_rows, _ = batch.x_KBD.shape
        losses[:k, batch.start : batch.start + n_rows] = batch.target_KTB[:, 0]
    expected = [(s.target * (1 if s.weight is None else s.weight)).sum().item() / len(s) for s in samples]
    assert batches.mean_losses(losses) == pytest.approx(expected)


def test_tables_on__when_jobs_share_a_table__then_it_is_kept_once():
    one, other = (DenseTable(torch.ones(2, 1)) for _ in range(2))
    moved = tables_on("cpu", [one, other, one])
    assert moved[0] is moved[2] is not moved[1]
    assert moved[0].values.data_ptr() == one.values.data_ptr()


def test_padded__when_lengths_differ__then_zeros_follow():
    assert padded([torch.ones(2, 2), torch.ones(1, 2)], 3).sum((1, 2)).tolist() == [4, 2]
    assert torch.equal(padded([torch.arange(3)] * 2, 3), torch.arange(3).expand(2, -1))


# --- dropout -----------------------------------------------------------------------------------------------------


def all_masks(masks, lengths, batch_size):
    """Every job's masks of one epoch, layer by layer: ``[k][layer]`` of shape (rows, units)."""
    steps = []
    for start in range(0, max(lengths), batch_size):
        k = sum(length > start for length in lengths)
        n_rows = min(batch_size, max(lengths) - start)
        steps.append([mask.clone() for mask in masks.masks(start, k, n_rows)])
    return [
        [torch.cat([step[i][k] for step in steps if len(step[i]) > k])[:length] for i in range(len(steps[0]))]
        for k, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_dropout__then_units_drop_at_the_rate_and_the_mean_stays(rate):
    masks = DropoutMasks(generators(2), [rate, 0.3], [500, 500], (40, 20), 100, torch.float64)
    for layer in all_masks(masks, [500, 500], 100)[0]:
        kept = layer > 0
        torch.testing.assert_close(layer[kept], torch.full_like(layer[kept], 1 / (1 - rate)))
        sigma = (rate * (1 - rate) / layer.numel()) ** 0.5
        assert abs(kept.double().mean().item() - (1 - rate)) <= 4 * sigma
        # No unit and no row is left out for good.
        if rate < 0.9:
            assert kept.any(0).all() and kept.any(1).all()


def test_dropout__when_rate_is_almost_one__then_almost_all_units_drop():
    masks = DropoutMasks(generators(1), [1 - 1e-7], [1000], (50,), 1000, torch.float64)
    assert (masks.masks(0, 1, 1000)[0] > 0).double().mean().item() < 0.001


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
