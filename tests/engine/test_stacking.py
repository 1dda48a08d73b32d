"""Which jobs share a stack."""

from dataclasses import replace

import torch

from skdl.engine.job import Monitor
from skdl.engine.stacking import stacks_of


def jobs_of(make, lengths, monitors=None):
    """A job of each number of rows; those of one monitor are of one fit."""
    plan = make.plan()
    table = make.table(plan, 60, 0)
    jobs = [make.job(plan, samples=make.samples(plan, table, None if n == 60 else torch.arange(n))) for n in lengths]
    for job, monitor in zip(jobs, monitors or [], strict=False):
        job.monitor = monitor
    return jobs


def lengths_of(jobs, **settings):
    return sorted(sorted(len(jobs[i].train) for i in stack) for stack in stacks_of(jobs, **settings))


def test_jobs_of_equally_many_rows_have_a_stack_and_the_others_one_more(make):
    jobs = jobs_of(make, [40, 50, 40, 50, 40, 30, 60])
    assert lengths_of(jobs) == [[30, 60], [40, 40, 40], [50, 50]]


def test_a_wide_group_is_parted_among_workers_and_narrow_ones_are_not(make):
    assert lengths_of(jobs_of(make, [40] * 16 + [50] * 3), n_workers=2) == [[40] * 8, [40] * 8, [50] * 3]
    assert lengths_of(jobs_of(make, [40] * 15 + [50] * 3), n_workers=2) == [[40] * 15, [50] * 3]
    # A lone group is for all workers.
    assert lengths_of(jobs_of(make, [40] * 3), n_workers=2) == [[40], [40] * 2]
    assert lengths_of(jobs_of(make, [40] * 6), max_models=3) == [[40] * 3] * 2


def test_the_members_of_a_fit_stay_together(make):
    one, other = Monitor(), Monitor()
    jobs = jobs_of(make, [40, 50, 40, 50, 40], [one, one, other, other])
    assert lengths_of(jobs) == [[40], [40, 40, 50, 50]]


def test_batches_of_more_rows_than_there_are_part_no_stack(make):
    plan = replace(make.plan(), batch_size=10**6)
    table = make.table(plan, 60, 0)
    jobs = [make.job(plan, samples=make.samples(plan, table, None)) for _ in range(4)]
    assert lengths_of(jobs) == [[60] * 4]
