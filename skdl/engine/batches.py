"""Minibatches for K jobs in step.

Axes: K models, N rows of the longest job, B batch rows, R rows of several batches, D numeric inputs, E embedded
columns, T numbers of a target (1 for a label).

Jobs stand in order of falling length, so that the jobs that still have a batch at some step of an epoch are always
the first ones: shorter jobs sit out the last steps, and inside a batch they are padded with rows of weight 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.job import Samples

#: Batches whose rows are sorted by size together, where sizes differ: enough for batches of like rows, few enough for
#: batches to stay random, for size and target may go together.
SORTED_BATCHES = 4


class Batch(NamedTuple):
    """One step's rows of the first K jobs.

    ``start`` is the place of its first row in the epoch, ``n_models`` is K. ``weight_K1B`` is the share that each row
    has in the batch's mean loss. ``rows_KB1`` is 1 for rows and 0 for padding; None if there is no padding.
    """

    start: int
    n_models: int
    x_KBD: Tensor
    codes_KBE: Tensor | None
    target_KTB: Tensor
    weight_K1B: Tensor
    rows_KB1: Tensor | None


Element = TypeVar("Element")


def prefetch(elements: Iterator[Element]) -> Iterator[Element]:
    """The same elements, each made in another thread while the one before it is used."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, elements, end)
        while (element := pending.result()) is not end:
            pending = pool.submit(next, elements, end)
            yield cast(Element, element)


def bucket_by_size(order: Tensor, sizes: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """The rows of a random order in batches of rows of like sizes, which come in random order again.

    A last batch of fewer rows stays as it is.
    """
    whole, rest = order.split([len(order) // batch_size * batch_size, len(order) % batch_size])
    pools = [pool[sizes[pool].argsort(stable=True)] for pool in whole.split(SORTED_BATCHES * batch_size)]
    batches = torch.cat(pools).view(-1, batch_size)
    return torch.cat([batches[torch.randperm(len(batches), generator=generator)].view(-1), rest])


def padded(tensors: Sequence[Tensor], length: int) -> Tensor:
    """Stack tensors of different lengths, filled up with zeros."""
    if len(tensors) == 1:
        return tensors[0].unsqueeze(0)
    if all(len(tensor) == length for tensor in tensors):
        return torch.stack(list(tensors))
    stacked = tensors[0].new_zeros(len(tensors), length, *tensors[0].shape[1:])
    for k, tensor in enumerate(tensors):
        stacked[k, : len(tensor)] = tensor
    return stacked


class DeviceTables:
    """Tables on a device: each is copied there once, however many jobs and stacks ask for it."""

    def __init__(self, device: str) -> None:
        self.device = device
        #: Each table, which has to live on to keep its ``id``, and its copy.
        self._copies: dict[int, tuple[Table, Table]] = {}

    def of(self, table: Table) -> Table:
        """The table's copy on the device."""
        if id(table) not in self._copies:
            self._copies[id(table)] = table, table.to(self.device)
        return self._copies[id(table)][1]


def table_ranks(samples: Iterable[Samples]) -> dict[int, int]:
    """The rank of each table, by its ``id``, in the order in which the tables first come.

    Sorting by it brings together what reads one table, in an order that does not depend on memory addresses.
    """
    ranks: dict[int, int] = {}
    for s in samples:
        ranks.setdefault(id(s.table), len(ranks))
    return ranks


class Batches:
    """The minibatches of K jobs.

    Parameters
    ----------
    samples : sequence of Samples
        In order of falling length.
    batch_size : int
    tables : DeviceTables
        Where the tables of the samples are found on the device.
    dtype : torch.dtype
    """

    def __init__(self, samples: Sequence[Samples], batch_size: int, tables: DeviceTables, dtype: torch.dtype) -> None:
        self.lengths = [len(s) for s in samples]
        self.batch_size = batch_size
        self.n_rows = self.lengths[0]
        self.n_steps = [-(-length // batch_size) for length in self.lengths]
        #: How many jobs have a batch at each step.
        self.widths = [sum(n > step for n in self.n_steps) for step in range(self.n_steps[0])]
        self.device = device = tables.device
        self.tables = [tables.of(s.table) for s in samples]
        self.taken_rows = self.tables[0].take_numel // max(self.tables[0].n_columns, 1)
        self.prefetches = any(table.prefetches for table in self.tables)
        self.stretches = self._stretches()
        self.factors_K1D = self._factors(samples, dtype)
        self.rows_KN = self._rows(samples)
        self.sizes = [_sizes(s) for s in samples]
        targets = padded([s.target if s.target.ndim == 2 else s.target.unsqueeze(1) for s in samples], self.n_rows)
        self.target_KTN = targets.transpose(1, 2).contiguous().to(device)
        self.share_KN = padded([self._shares(length, dtype) for length in self.lengths], self.n_rows).to(device)
        n_rows_K1 = torch.tensor(self.lengths, dtype=dtype, device=device).unsqueeze(1)
        #: The share that a row has in the mean over its job, by its place in the epoch.
        self.mean_KN = torch.where(self.share_KN > 0, n_rows_K1.reciprocal(), 0)
        #: The same by its weight, in the last epoch's order.
        self.weighted_mean_KN = self.mean_KN
        self.shares = self._steps(self.share_KN)
        #: Of each step, which of its rows are not padding; None where no row is.
        self.real_rows = self._real_rows(dtype)
        weights = [torch.ones(len(s), dtype=dtype) if s.weight is None else s.weight.to(dtype) for s in samples]
        weighted = any(s.weight is not None for s in samples)
        self.weight_KN = padded(weights, self.n_rows).to(device) if weighted else None

    def _stretches(self) -> list[tuple[Table, int, int]]:
        """Stretches of neighbouring jobs that share a table."""
        stretches: list[tuple[Table, int, int]] = []
        for k, table in enumerate(self.tables):
            if stretches and stretches[-1][0] is table:
                stretches[-1] = (table, stretches[-1][1], k + 1)
            else:
                stretches.append((table, k, k + 1))
        return stretches

    def _factors(self, samples: Sequence[Samples], dtype: torch.dtype) -> Tensor | None:
        """What each job's columns are multiplied by; None where all factors are 1."""
        if all(s.factors_D is None for s in samples):
            return None
        ones_D = torch.ones(self.tables[0].n_columns)
        factors = [ones_D if s.factors_D is None else s.factors_D for s in samples]
        return torch.stack(factors).unsqueeze(1).to(self.device, dtype)

    def _rows(self, samples: Sequence[Samples]) -> Tensor | None:
        """Row numbers in the tables; None where position and row number are the same everywhere."""
        if all(s.rows is None for s in samples):
            return None
        rows = [torch.arange(len(s)) if s.rows is None else s.rows for s in samples]
        # Padding repeats a job's own row: another's might be so large that not even a weight of 0 silences it.
        filled = [torch.cat([r, r[:1].expand(self.n_rows - len(r))]) for r in rows]
        return torch.stack(filled).to(self.device)

    def _real_rows(self, dtype: torch.dtype) -> list[Tensor | None]:
        is_row = (self.share_KN > 0).to(dtype).unsqueeze(-1).split(self.batch_size, 1)
        stops = [min((step + 1) * self.batch_size, self.n_rows) for step in range(len(is_row))]
        shortest = [self.lengths[k - 1] for k in self.widths]
        return [
            rows[:k] if length < stop else None
            for rows, k, length, stop in zip(is_row, self.widths, shortest, stops, strict=True)
        ]

    def _shares(self, length: int, dtype: torch.dtype) -> Tensor:
        """One over the number of rows in the batch that a position falls into."""
        sizes = torch.full((length,), float(self.batch_size), dtype=dtype)
        rest = length % self.batch_size
        sizes[length - rest :] = rest
        return sizes.reciprocal_()

    def epoch(
        self, generators: Sequence[torch.Generator], prepare: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Batch]:
        """The batches of one epoch, each job in an order drawn from its own generator.

        ``prepare`` makes of the target of several batches of the first jobs what stands in its place.
        """
        orders = [torch.randperm(n, generator=g) for n, g in zip(self.lengths, generators, strict=True)]
        orders = [
            order if sizes is None else bucket_by_size(order, sizes, self.batch_size, generator)
            for order, sizes, generator in zip(orders, self.sizes, generators, strict=True)
        ]
        order_KN = padded(orders, self.n_rows).to(self.device)
        target = self.target_KTN.gather(2, order_KN.unsqueeze(1).expand_as(self.target_KTN))
        weights = self.shares
        if self.weight_KN is not None:
            # Padding keeps its weight of 0: a share beyond a job's length is 0.
            weight_KN = self.weight_KN.gather(1, order_KN)
            weights = self._steps(self.share_KN * weight_KN)
            self.weighted_mean_KN = self.mean_KN * weight_KN
        rows = order_KN if self.rows_KN is None else self.rows_KN.gather(1, order_KN)
        return self._batches(rows, target, weights, prepare)

    def _steps(self, weight_KN: Tensor) -> tuple[Tensor, ...]:
        """Weights ``(K, 1, B)`` of the rows of each step."""
        return weight_KN.unsqueeze(1).split(self.batch_size, 2)

    def mean_losses(self, loss_KN: Tensor) -> list[float]:
        """Mean loss of each job, from the losses of the last epoch's rows in the order in which they came."""
        return (loss_KN * self.weighted_mean_KN).sum(1).tolist()

    def in_order(self) -> Iterator[Batch]:
        """The batches in the samples' own order, each row of its own weight."""
        weight = (self.share_KN > 0).to(self.share_KN.dtype)
        if self.weight_KN is not None:
            weight = weight * self.weight_KN
        rows = self.rows_KN
        if rows is None and len(self.stretches) == 1 and len(self.lengths) > 1:
            rows = torch.arange(self.n_rows, device=self.device).expand(len(self.lengths), -1)
        return self._batches(rows, self.target_KTN, self._steps(weight))

    def _batches(
        self,
        rows_KN: Tensor | None,
        target_KTN: Tensor,
        weights: Sequence[Tensor],
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        gathered = self._gathered(rows_KN)
        if self.prefetches:
            gathered = prefetch(gathered)
        first = 0
        for x, codes in gathered:
            k, n_rows, _ = x.shape
            start = first * self.batch_size
            xs = x.split(self.batch_size, 1)
            target_KTR = target_KTN[:k, :, start : start + n_rows]
            steps = slice(first, first := first + len(xs))
            yield from map(
                Batch,
                range(start, start + n_rows, self.batch_size),
                self.widths[steps],
                xs,
                [None] * len(xs) if codes is None else codes.split(self.batch_size, 1),
                (target_KTR if prepare is None else prepare(target_KTR)).split(self.batch_size, 2),
                weights[steps] if k == len(self.lengths) else [weight[:k] for weight in weights[steps]],
                self.real_rows[steps],
            )

    def _gathered(self, rows_KN: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The inputs of several batches of the same jobs at a time."""
        step = 0
        while step < self.n_steps[0]:
            k = self.widths[step]
            n_steps = max(self.taken_rows // (k * self.batch_size), 1)
            last = min(step + n_steps, self.n_steps[k - 1])
            first_row, stop_row = step * self.batch_size, min(last * self.batch_size, self.n_rows)
            if rows_KN is None:
                yield self._slice(first_row, stop_row, k)
            else:
                yield self._take(rows_KN[:k, first_row:stop_row])
            step = last

    def _take(self, rows_KB: Tensor) -> tuple[Tensor, Tensor | None]:
        k, b = rows_KB.shape
        parts = [table.take(rows_KB[lo:hi].reshape(-1)) for table, lo, hi in self.stretches if lo < k]
        x = parts[0][0] if len(parts) == 1 else torch.cat([values for values, _ in parts])
        codes = [part for _, part in parts if part is not None]
        x_KBD = x.view(k, b, -1)
        if self.factors_K1D is not None:
            # What was taken is a copy.
            x_KBD.mul_(self.factors_K1D[:k])
        return x_KBD, torch.cat(codes).view(k, b, -1) if codes else None

    def _slice(self, start: int, stop: int, k: int) -> tuple[Tensor, Tensor | None]:
        if k == 1:
            x, codes = self.tables[0].slice(start, stop)
            x_KBD = x[None] if self.factors_K1D is None else x * self.factors_K1D[:k]
            return x_KBD, None if codes is None else codes[None]
        last = torch.tensor(self.lengths[:k], device=self.device)[:, None] - 1
        rows = torch.arange(start, stop, device=self.device).expand(k, -1).minimum(last)
        return self._take(rows)


def _sizes(samples: Samples) -> Tensor | None:
    """The size of each sample's row."""
    sizes = samples.table.sizes
    return sizes if sizes is None or samples.rows is None else sizes[samples.rows]
