"""Losses that wait for many steps, against losses step by step."""

import pytest
import torch

from skdl.engine import epoch_losses
from skdl.engine.batches import Batch
from skdl.engine.epoch_losses import EpochLosses
from skdl.nn.augment import Mixing
from skdl.tasks import losses

K, C, B, N = 3, 4, 8, 37
SMOOTHING = {"label_smoothing": torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64).view(K, 1, 1)}


def make(loss=None):
    return EpochLosses(loss or losses.CrossEntropy(), SMOOTHING, N, C, torch.zeros(K, 1, dtype=torch.float64))


def steps(record, widths):
    """Batches of so many models each, and the outputs that a network gives for them."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(C, (K, 1, N), generator=generator)
    for step, k in enumerate(widths):
        rows = slice(step * B, min((step + 1) * B, N))
        batch = Batch(rows.start, k, None, None, record.prepared(target[:k, :, rows]), None, None)
        yield batch, torch.randn(k, C, batch.target_KTB.shape[2], dtype=torch.float64, generator=generator)


def of_step(batch, output, loss):
    settings = {name: vector[: batch.n_models] for name, vector in SMOOTHING.items()}
    return loss.loss_gradient(output, batch.target_KTB, settings)


@pytest.mark.parametrize("most_waiting", [1, 2 * K * C * B, 10**6], ids=["none", "two", "all"])
@pytest.mark.parametrize("widths", [(3, 3, 3, 3, 3), (3, 3, 2, 1, 1)], ids=["equal", "falling"])
@pytest.mark.parametrize("loss", [losses.CrossEntropy(), losses.BinaryCrossEntropy()], ids=["classes", "labels"])
def test_epoch_losses__when_they_wait__then_those_of_each_step(monkeypatch, loss, widths, most_waiting):
    monkeypatch.setattr(epoch_losses, "MAX_WAITING_OUTPUTS", most_waiting)
    record = make()
    for _ in range(2):  # The second epoch writes over the first.
        record.loss = loss
        expected = torch.zeros(K, N, dtype=torch.float64)
        for batch, output in list(steps(make(), widths)):
            values, gradient = of_step(batch, output, loss)
            torch.testing.assert_close(record.gradient(batch, output), gradient)
            expected[: batch.n_models, batch.start : batch.start + B] = values
        record.flush()
        torch.testing.assert_close(record.loss_KN, expected)
        record.loss_KN.zero_()


def test_epoch_losses__when_loss_sees_one_step_at_a_time__then_it_is_asked_for_both_at_once():
    asked = []

    class Own(losses.CrossEntropy):
        stackable = False

        def loss(self, output, target, settings):
            asked.append(output.shape[2])
            return super().loss(output, target, settings)

    record = make(Own())
    for batch, output in steps(record, (3, 3, 3, 3, 3)):
        record.gradient(batch, output)
    assert asked == [8, 8, 8, 8, 5]


def test_epoch_losses__when_rows_are_mixed__then_losses_and_gradients_are():
    record, loss = make(), losses.CrossEntropy()
    mixing = Mixing(torch.arange(B - 1, -1, -1), torch.tensor(0.25, dtype=torch.float64))
    batch, output = next(steps(record, (3,)))
    got = record.gradient(batch, output, mixing)
    own, other = (
        of_step(batch._replace(target_KTB=t), output, loss) for t in (batch.target_KTB, batch.target_KTB.flip(2))
    )
    torch.testing.assert_close(got, 0.75 * own[1] + 0.25 * other[1])
    torch.testing.assert_close(record.loss_KN[:, :B], 0.75 * own[0] + 0.25 * other[0])
