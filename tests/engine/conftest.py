"""Small jobs for the tests of the engine."""

from types import SimpleNamespace

import pytest
import torch

from skdl.data.table import DenseTable
from skdl.engine.job import Job, Monitor, OptimizerKind, Plan, Samples, Settings
from skdl.nn.activations import get_activation
from skdl.nn.dense import DenseArchitecture
from skdl.tasks.losses import CrossEntropy

N_INPUTS, N_CLASSES = 5, 3


def make_plan(
    loss=None,
    *,
    activation="relu",
    normalization=None,
    hidden=(8, 6),
    embeddings=(),
    optimizer="adamw",
    nesterov=False,
    batch_size=16,
    dtype=torch.float32,
    n_inputs=N_INPUTS,
    periodic=None,
):
    loss = loss or CrossEntropy()
    n_outputs = N_CLASSES if isinstance(loss, CrossEntropy) else 1
    network = DenseArchitecture(
        n_inputs,
        n_outputs,
        hidden,
        get_activation(activation),
        normalization,
        embeddings,
        periodic,
    )
    return Plan(network, loss, OptimizerKind(optimizer, nesterov), batch_size, dtype=dtype)


def make_table(plan, n_rows=40, seed=0):
    """Random rows. All rows of all tables follow one law, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n_rows, plan.architecture.n_inputs, generator=generator, dtype=torch.float64).to(plan.dtype)
    codes = [torch.randint(n, (n_rows,), generator=generator) for n, _ in plan.architecture.embeddings]
    return DenseTable(values, torch.stack(codes, 1) if codes else None)


def make_samples(plan, table, rows=None, weight=None):
    """Rows of a table with their targets."""
    x, codes = table.slice(0, len(table)) if rows is None else table.take(rows)
    signal = torch.sin(2 * x.double()) if x.shape[1] else codes.double()
    law = torch.arange(signal.shape[1] * N_CLASSES, dtype=torch.float64).view(signal.shape[1], N_CLASSES).cos()
    target = signal @ law
    target = target.argmax(1) if isinstance(plan.loss, CrossEntropy) else target[:, :1].to(plan.dtype)
    return Samples(table, target, None if weight is None else weight.to(plan.dtype), rows)


def make_job(plan=None, *, samples=None, n_rows=40, seed=0, validation=None, start=None, monitor=None, **settings):
    plan = plan or make_plan()
    samples = samples or make_samples(plan, make_table(plan, n_rows))
    return Job(plan, Settings(**settings), samples, seed, validation, start, monitor or Monitor())


@pytest.fixture(scope="session")
def make():
    """The functions above."""
    return SimpleNamespace(plan=make_plan, table=make_table, samples=make_samples, job=make_job)


class Listener(Monitor):
    """Keeps what it is told: ``snapshots`` after each epoch. Answers from ``answer`` and ``scripted`` scores."""

    def __init__(self, answer=lambda epochs: False, scripted=None):
        self.answer = answer
        self.scripted = scripted
        self.scores = scripted is not None
        self.n_epochs = 0
        self.snapshots = []
        self.scored = []

    def on_epoch_begin(self):
        self.n_epochs += 1

    def on_epoch_end(self, epochs):
        self.snapshots.append([epoch.snapshot().clone() for epoch in epochs])
        return self.answer(epochs)

    def score(self, job, output, snapshot):
        self.scored.append((output.copy(), snapshot().clone()))
        return self.scripted[len(self.scored) - 1]


@pytest.fixture(scope="session")
def listener():
    """The class of monitors that keep what they are told."""
    return Listener
