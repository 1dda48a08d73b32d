"""Which jobs are trained in one stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

import torch

from skdl.engine.batches import table_ranks
from skdl.engine.job import Job, Plan

#: Bytes that one stack's step may work on, on a CPU: about half of a last-level cache. A stack of small networks
#: saves calls, but one that falls out of the cache costs more than it saves; see benchmarks/search_speed.py.
CACHE_BYTES = 16_000_000
#: Multiplications of one model's forward pass above which a CPU is busy with arithmetic alone: there is nothing for
#: company to save.
LARGE_STEP = 10_000_000
#: Models that each worker's stack should have for a group to be parted among the workers, if there are other groups.
MIN_WORKER_STACK = 8
#: Copies of the parameters that a step touches: themselves, gradient, two moments, best so far.
PARAMETER_COPIES = 5
#: Copies of a layer's output that a step touches: output, where its gradient goes as well; what the activation or
#: dropout makes of it; dropout factors.
ACTIVATION_COPIES = 3


def step_bytes(plan: Plan, n_rows: int) -> int:
    """Bytes that one model's training step works on, of so many training rows in all."""
    activations = min(plan.batch_size, n_rows) * plan.architecture.n_activations
    numbers = PARAMETER_COPIES * plan.architecture.n_parameters + ACTIVATION_COPIES * activations
    return numbers * plan.dtype.itemsize


def widest_stack(plan: Plan, n_rows: int, max_models: int | None = None, max_bytes: int | None = None) -> int:
    """How many models of a plan, with so many training rows each, one stack should hold; at least 1."""
    if plan.device == "cpu":
        if min(plan.batch_size, n_rows) * plan.architecture.n_multiplications > LARGE_STEP:
            return 1
        room = CACHE_BYTES
    elif plan.device.startswith("cuda"):
        room = torch.cuda.mem_get_info(plan.device)[0] // 2
    else:
        room = 1_000_000_000
    widest = (min(room, max_bytes) if max_bytes else room) // step_bytes(plan, n_rows)
    return max(min(widest, max_models) if max_models else widest, 1)


def stack_key(plan: Plan) -> Hashable:
    """Equal for plans whose jobs may share a stack."""
    # A user's own function may have no hash.
    return plan if plan.is_stackable else id(plan)


def fits_of(jobs: Iterable[Job]) -> list[list[int]]:
    """The places of the jobs of each fit: jobs that share a monitor and a plan."""
    fits: dict[object, list[int]] = defaultdict(list)
    for i, job in enumerate(jobs):
        fits[job.monitor, stack_key(job.plan)].append(i)
    return list(fits.values())


def stacks_of(
    jobs: Sequence[Job], max_models: int | None = None, max_bytes: int | None = None, n_workers: int = 1
) -> list[list[int]]:
    """The places of the jobs of each stack.

    Jobs of equal plans are put together, if they can be stacked, in groups of equally many rows; the jobs of one fit
    are never parted. The stacks of a group are about equally wide; a group that is wide, or the plan's only one, has
    at least as many of them as there are workers to train them.
    """
    by_plan: dict[Hashable, list[list[int]]] = defaultdict(list)
    for fit in fits_of(jobs):
        by_plan[stack_key(jobs[fit[0]].plan)].append(fit)
    stacks: list[list[int]] = []
    for fits in by_plan.values():
        plan = jobs[fits[0][0]].plan
        if not plan.is_stackable:
            stacks.extend(fits)
            continue
        groups = _of_equal_lengths(jobs, fits)
        for group in groups:
            widest = widest_stack(plan, len(jobs[group[0][0]].train), max_models, max_bytes)
            n_models = sum(map(len, group))
            n_parts = n_workers if len(groups) == 1 or n_models >= MIN_WORKER_STACK * n_workers else 1
            n_stacks = min(max(-(-n_models // widest), n_parts), len(group))
            # Fits on one table stand together, so that a stack reads few tables.
            rank = table_ranks(jobs[fit[0]].train for fit in group)
            group.sort(key=lambda fit: rank[id(jobs[fit[0]].train.table)])
            bounds = [round(s * len(group) / n_stacks) for s in range(n_stacks + 1)]
            stacks.extend([i for fit in group[lo:hi] for i in fit] for lo, hi in pairwise(bounds))
    return stacks


def _of_equal_lengths(jobs: Sequence[Job], fits: Sequence[list[int]]) -> list[list[list[int]]]:
    """The fits in groups: those of equal numbers of rows, and all lone models that have no equal.

    The last batches of a stack are filled up to the longest, and products of more rows round otherwise: at a high
    learning rate, a model beside longer ones would in the end be another than by itself.
    """
    by_lengths: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for fit in fits:
        by_lengths[tuple(len(jobs[i].train) for i in fit)].append(fit)
    groups, without_equal = [], []
    for group in by_lengths.values():
        if len(group) == len(group[0]) == 1:
            without_equal += group
        else:
            groups.append(group)
    return [*groups, without_equal] if without_equal else groups
