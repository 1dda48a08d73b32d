import numpy as np
import pytest
import torch
from scipy.special import expit

from skdl.tasks.classification import ClassificationTask
from skdl.tasks.losses import BinaryCrossEntropy, CrossEntropy, CustomLoss


def certain_output(task, encoded):
    """Outputs of a network that has learned the target by heart."""
    if encoded.dtype == torch.int64:
        return 20.0 * np.eye(task.n_outputs)[encoded.numpy()]
    return 40.0 * encoded.numpy() - 20


LABELS = {
    "bools": np.array([True, False, True]),
    "binary": np.array([0, 1, 1]),
    "far_apart": np.array([-(2**40), 7, 2**40]),
    "floats": np.array([1.0, 3.0, 2.0]),
    "strings": np.array(["b", "a", "long label", "b"]),
    "objects": np.array(["no", "yes", "no"], dtype=object),
    "uint8": np.array([3, 200, 3, 255], dtype=np.uint8),
    "one_class": np.array([4, 4]),
    "multilabel": np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]]),
}


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", lambda output, target: output[:, 0]])
@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels__when_encoded_and_decoded__then_themselves(y, loss):
    task = ClassificationTask(loss).fit(y)
    encoded = task.encode(y, torch.float32)
    output = certain_output(task, encoded)
    assert output.shape == (len(y), task.n_outputs)
    decoded = task.decode(output)
    np.testing.assert_array_equal(decoded, y)
    if y.ndim == 1:
        assert decoded.dtype == y.dtype


@pytest.mark.parametrize("loss", ["cross_entropy", lambda output, target: output[:, 0]])
@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_probabilities__then_they_sum_to_one_and_follow_the_labels(y, loss):
    task = ClassificationTask(loss).fit(y)
    output = np.random.default_rng(0).normal(size=(20, task.n_outputs))
    p, log_p = task.probabilities(output), task.log_probabilities(output)
    np.testing.assert_allclose(np.exp(log_p), p)
    if y.ndim == 2:
        np.testing.assert_allclose(p, expit(output))
        np.testing.assert_array_equal(task.decode(output), p > 0.5)
        return
    assert p.shape == (20, len(task.classes))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(task.decode(output), task.classes[p.argmax(axis=1)])


@pytest.mark.parametrize("y", [LABELS["binary"], LABELS["strings"], LABELS["multilabel"]])
def test_log_probabilities__when_probability_rounds_to_zero__then_still_exact(y):
    task = ClassificationTask("cross_entropy").fit(y)
    output = np.zeros((1, task.n_outputs))
    output[0, 0] = -800
    assert task.log_probabilities(output).min() == pytest.approx(-800, abs=2)


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_combine__then_probabilities_are_the_mean_of_the_members(y):
    task = ClassificationTask("cross_entropy").fit(y)
    outputs = 5 * np.random.default_rng(0).normal(size=(3, 20, task.n_outputs))
    outputs[0, 0] = 300
    expected = np.mean([task.probabilities(output) for output in outputs], axis=0)
    np.testing.assert_allclose(task.probabilities(task.combine(outputs)), expected, rtol=1e-9)


def test_combine__when_some_rows_at_a_time__then_the_same(monkeypatch):
    task = ClassificationTask("cross_entropy").fit(np.array(["a", "b", "c"]))
    outputs = np.random.default_rng(0).normal(size=(3, 20, 3))
    whole = task.combine(outputs)
    monkeypatch.setattr("skdl.tasks.classification.CHUNK_NUMBERS", 30)
    np.testing.assert_array_equal(task.combine(outputs), whole)
    assert task.combine(outputs[:, :0]).shape == (0, 3)


def test_encode__when_binary__then_one_column_of_zeros_and_ones():
    task = ClassificationTask("cross_entropy").fit(np.array(["no", "yes"]))
    encoded = task.encode(np.array(["yes", "no", "yes"]), torch.float64)
    assert encoded.tolist() == [[1.0], [0.0], [1.0]] and encoded.dtype == torch.float64
    assert (task.n_outputs, task.output_activation, task.loss) == (1, "logistic", BinaryCrossEntropy())


def test_encode__when_multiclass__then_indices():
    task = ClassificationTask("cross_entropy").fit(np.array(["c", "a", "b"]))
    encoded = task.encode(np.array(["c", "a"]), torch.float32)
    assert encoded.tolist() == [2, 0] and encoded.dtype == torch.int64
    assert (task.n_outputs, task.output_activation, task.loss) == (3, "softmax", CrossEntropy())


def test_encode__when_loss_is_callable__then_two_classes_have_a_logit_each():
    function = torch.nn.functional.cross_entropy
    task = ClassificationTask(function).fit(np.array([5, 9, 5]))
    assert task.encode(np.array([9, 5]), torch.float32).tolist() == [1, 0]
    assert (task.n_outputs, task.output_activation, task.loss) == (2, "softmax", CustomLoss(function))


def test_fit__when_classes_are_named__then_those_count():
    task = ClassificationTask("cross_entropy").fit(np.array([1, 1]), classes=[3, 1, 2])
    assert task.classes.tolist() == [1, 2, 3]
    assert task.encode(np.array([3, 1]), torch.float32).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("y", "unseen"),
    [
        (np.array(["a", "b", "c"]), ["", "aa", "zz"]),
        (np.array([2, 4, 6]), [-1, 3, 99]),
        (np.array([0.0, 1.0]), [0.5]),
        (np.array([False, True]), [2]),
        (np.array(["a", "b"], dtype=object), ["zz"]),
    ],
    ids=["strings", "ints", "floats", "bools", "objects"],
)
def test_encode__when_label_was_not_in_fit__then_error_names_it(y, unseen):
    task = ClassificationTask("cross_entropy").fit(y)
    mixed = np.array([y[0], *unseen], dtype=object if y.dtype == object else None)
    with pytest.raises(ValueError, match="labels that the model does not know") as error:
        task.encode(mixed, torch.float32)
    for label in unseen:
        assert repr(label) in str(error.value)


@pytest.mark.parametrize(
    ("known", "given"),
    [(np.array([0, 1, 2]), np.array(["0", "1"])), (np.array(["a", "b"]), np.array([0, 1]))],
    ids=["strings_for_ints", "ints_for_strings"],
)
def test_encode__when_labels_are_of_another_kind__then_error_names_them(known, given):
    task = ClassificationTask("cross_entropy").fit(known)
    with pytest.raises(ValueError, match="labels that the model does not know"):
        task.encode(given, torch.float32)


def test_encode__when_many_labels_were_not_in_fit__then_error_names_some():
    task = ClassificationTask("cross_entropy").fit(np.array([0, 1]))
    with pytest.raises(ValueError, match=r"does not know: \[2, 3, .*, 11\] and 8 more. It knows \[0, 1\]"):
        task.encode(np.arange(20), torch.float32)


@pytest.mark.parametrize("y", [np.array([[0, 1]]), np.array([0, 1, 1])])
def test_encode__when_number_of_labels_differs__then_error(y):
    task = ClassificationTask("cross_entropy").fit(LABELS["multilabel"])
    with pytest.raises(ValueError, match="fitted on 3 labels per sample"):
        task.encode(y, torch.float32)


def test_fit__when_target_is_continuous__then_refused():
    with pytest.raises(ValueError, match="continuous"):
        ClassificationTask("cross_entropy").fit(np.array([0.1, 0.2, 0.7]))
