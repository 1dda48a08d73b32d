import pytest
import torch

from skdl.data.table import DenseTable
from skdl.engine.batches import Batches, DeviceTables, bucket_by_size, padded
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
    batches = Batches(samples, batch_size, DeviceTables("cpu"), torch.float64)
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
    company = Batches(samples, 8, DeviceTables("cpu"), torch.float32)
    lone = [Batches([sample], 8, DeviceTables("cpu"), torch.float32) for sample in samples]
    together, apart = generators(len(lengths)), generators(len(lengths))
    for _ in range(2):
        steps = list(company.epoch(together))
        for k, (batches, generator) in enumerate(zip(lone, apart, strict=True)):
            for step, batch in zip(steps, batches.epoch([generator]), strict=False):
                assert torch.equal(step.x_KBD[k, real_rows(step, k)], batch.x_KBD[0])


def test_epoch__when_repeated__then_order_changes_and_seed_reproduces_it():
    batches = Batches(make_samples((40,)), 40, DeviceTables("cpu"), torch.float32)
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
    batches = list(Batches(samples, 8, DeviceTables("cpu"), torch.float64).in_order())
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
    (batch,) = Batches(samples, 8, DeviceTables("cpu"), torch.float32).in_order()
    assert torch.equal(batch.x_KBD[..., 0], torch.arange(5.0).expand(3, -1))
    assert torch.equal(batch.target_KTB[:, 0], torch.arange(5.0) * torch.arange(3.0)[:, None])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_mean_losses__then_every_row_counts_once_by_its_weight(lengths):
    samples = make_samples(lengths)
    batches = Batches(samples, 8, DeviceTables("cpu"), torch.float64)
    generators = [torch.Generator().manual_seed(k) for k in range(len(lengths))]
    losses = torch.full((len(lengths), max(lengths)), 99.0, dtype=torch.float64)
    for batch in batches.epoch(generators):
        k, n_rows, _ = batch.x_KBD.shape
        losses[:k, batch.start : batch.start + n_rows] = batch.target_KTB[:, 0]
    expected = [(s.target * (1 if s.weight is None else s.weight)).sum().item() / len(s) for s in samples]
    assert batches.mean_losses(losses) == pytest.approx(expected)


class CountedTable(DenseTable):
    """A table that counts how often it is copied to a device."""

    n_copies = 0

    def to(self, device):
        self.n_copies += 1
        return super().to(device)


def test_device_tables__when_jobs_share_a_table__then_it_is_copied_once():
    one, other = (CountedTable(torch.ones(2, 1)) for _ in range(2))
    tables = DeviceTables("cpu")
    copies = [tables.of(table) for table in (one, other, one)]
    assert copies[0] is copies[2] is not copies[1]
    assert one.n_copies == other.n_copies == 1


def test_batches__when_samples_have_factors__then_each_job_reads_its_own_columns():
    table = DenseTable(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    target = torch.zeros(2)
    samples = [Samples(table, target, factors_D=torch.tensor([2.0, 3.0])), Samples(table, target)]
    for some, expected in ((samples, [[[2, 3], [4, 6]], [[1, 1], [2, 2]]]), (samples[:1], [[[2, 3], [4, 6]]])):
        batches = Batches(some, 2, DeviceTables("cpu"), torch.float32)
        (batch,) = batches.in_order()
        assert batch.x_KBD.tolist() == expected
        (batch,) = batches.epoch([torch.Generator().manual_seed(0) for _ in some])
        assert batch.x_KBD.sort(dim=1).values.tolist() == expected
    assert table.values.tolist() == [[1, 1], [2, 2]]


def test_padded__when_lengths_differ__then_zeros_follow():
    assert padded([torch.ones(2, 2), torch.ones(1, 2)], 3).sum((1, 2)).tolist() == [4, 2]
    assert torch.equal(padded([torch.arange(3)] * 2, 3), torch.arange(3).expand(2, -1))


def test_rows_of_like_sizes_come_together():
    sizes = torch.arange(1000) % 100
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    order = bucket_by_size(torch.randperm(1000, generator=generators[0]), sizes, 16, generators[0])
    again = bucket_by_size(torch.randperm(1000, generator=generators[1]), sizes, 16, generators[1])
    assert torch.equal(order, again) and torch.equal(order.sort().values, torch.arange(1000))
    spread = torch.stack([sizes[rows].max() - sizes[rows].min() for rows in order.split(16)[:-1]]).float()
    assert spread.mean() < 40
    # Batches stay in random order, and no epoch is like another.
    means = torch.stack([sizes[rows].float().mean() for rows in order.split(16)[:-1]])
    assert (means.diff() > 0).float().mean() < 0.7
    later = bucket_by_size(torch.randperm(1000, generator=generators[0]), sizes, 16, generators[0])
    assert not torch.equal(order, later)


def test_fewer_rows_than_a_batch_keep_their_order():
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bucket_by_size(order, torch.arange(7), 16, torch.Generator()), order)
