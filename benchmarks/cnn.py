"""Convolutional networks: time of a fit and of predictions beside torch and skorch, and errors with the defaults.

    python benchmarks/cnn.py                             # times, and the digits that come with scikit-learn
    python benchmarks/cnn.py --images fashion.npz        # and the error on a data set of one's own
    python benchmarks/cnn.py --only fit,predict --out figures.csv
    python benchmarks/cnn.py --cpu-time                  # by processor time, for a busy machine

``--images`` is an npz file with ``x`` (n, h, w) or (n, h, w, c), ``y`` and ``n_train``, the number of leading images
that may be trained on; ``--rows`` of them are, 10,000 unless said otherwise.

Everything runs on one thread, in float32. Times are taken in turns; a figure is the median over the repetitions of a
ratio of two times of the same repetition.

fit
    The same network, images, augmentation, batch size, epochs and AdamW for all: three blocks of convolution, pooling,
    batch normalisation and relu with 32, 64 and 128 channels, on images of 28 x 28 with half of them mirrored.

    by hand    a torch loop: autograd, fused AdamW, minibatches by index, images as floats from the start
    skorch     ``NeuralNetClassifier``, fused AdamW, without callbacks and validation
predict
    ``predict_proba`` of 2,000 images of 8 bits, beside the bare network and the softmax on floats.
digits
    Error of 5-fold cross-validation on scikit-learn's digits, 8 x 8, flat rows; nothing set but ``image_shape`` and
    ``random_state``; and the seconds of a fold.
tuning
    Error on the digits 5 to 9 after a fit on 50 images of each, mean over twelve draws: from scratch, and on a network
    of the digits 0 to 4 with its layers frozen, released from the top down, and free. Only what is said is set.
images
    Test error of the data set given, nothing set but ``random_state``, and the time of the fit over that of 12 epochs
    of the three blocks by hand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

# The first import fixes the number of threads for the others.
import _common as common
import numpy as np
import torch
from _common import Figure, Report
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torch.nn import functional as F

from skdl import CNNClassifier

CHANNELS = (32, 64, 128)
BATCH_SIZE, EPOCHS = 64, 2
#: Epochs by hand that the time of a fit with the defaults is compared with.
REFERENCE_EPOCHS = 12
TUNING_DRAWS = 12


class Flip(nn.Module):
    """Mirrors half of the images while training."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mirrored = torch.rand(len(x), 1, 1, 1) < 0.5
        return torch.where(mirrored, x.flip(3), x)


def three_blocks(n_channels: int, n_classes: int, *, pools_first: bool = True) -> nn.Module:
    """The network that all methods train."""
    layers: list[nn.Module] = [Flip()]
    n_in = n_channels
    for n_out in CHANNELS:
        tail = [nn.BatchNorm2d(n_out), nn.ReLU()]
        pool = nn.MaxPool2d(2)
        layers.append(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False))
        layers += [pool, *tail] if pools_first else [*tail, pool]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * n_in, n_classes))


def made_up_images(n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images of 28 x 28 pixels of 8 bits in ten classes: a bright bar at one of ten heights, in noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=n)
    x = rng.integers(0, 120, size=(n, 28, 28)).astype(np.uint8)
    for i, row in enumerate(y):
        x[i, 2 * row + 3 : 2 * row + 6, 6:22] += 100
    return x, y


def standardized(x: NDArray) -> Tensor:
    """Images ``(n, c, h, w)`` as floats, by one mean and deviation."""
    images = torch.as_tensor(x.reshape(*x.shape[:3], -1), dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
    return (images - images.mean()) / images.std()


def fit_by_hand(network: nn.Module, x: NDArray, y: NDArray, epochs: int) -> nn.Module:
    """A training loop as one writes it."""
    images, labels = standardized(x), torch.as_tensor(y)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1, fused=True)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH_SIZE):
            loss = F.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def fit_skorch(x: NDArray, y: NDArray) -> object:
    """The same with skorch."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        three_blocks(1, 10),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        optimizer__weight_decay=0.1,
        lr=3e-3,
        batch_size=BATCH_SIZE,
        max_epochs=EPOCHS,
        train_split=None,
        callbacks="disable",
        verbose=0,
        iterator_train__shuffle=True,
    )
    return net.fit(standardized(x).numpy(), y)


def plain_classifier(**parameters: object) -> CNNClassifier:
    """skdl, set to what the others do."""
    return CNNClassifier(
        conv_channels=CHANNELS,
        residual=False,
        label_smoothing=0.0,
        dropout=0.0,
        optimizer="adamw",
        lr_schedule="constant",
        augment={"flip": True},
        batch_size=BATCH_SIZE,
        random_state=0,
        device="cpu",
        **parameters,
    )


def fit_figures(repetitions: int) -> list[Figure]:
    x, y = made_up_images(2000)
    methods: dict[str, Callable[[], object]] = {
        "skdl": lambda: plain_classifier(max_epochs=EPOCHS).fit(x, y),
        "by hand": lambda: fit_by_hand(three_blocks(1, 10), x, y, EPOCHS),
    }
    try:
        import skorch  # noqa: F401
    except ImportError:
        print("skorch is not installed and is left out.")
    else:
        methods["skorch"] = lambda: fit_skorch(x, y)
    for method in methods.values():
        method()
    times = common.interleaved(methods, repetitions)
    targets = {"by hand": 1.0, "skorch": 0.7}
    return [
        Figure("fit", "2,000 x 28 x 28", f"skdl over {name}", common.ratio(times, "skdl", name), targets[name])
        for name in methods
        if name != "skdl"
    ]


def predict_figures(repetitions: int) -> list[Figure]:
    x, y = made_up_images(2000)
    classifier = plain_classifier(max_epochs=1).fit(x, y)
    network, images = fit_by_hand(three_blocks(1, 10), x, y, 1), standardized(x)

    def bare() -> Tensor:
        with torch.inference_mode():
            return network(images).softmax(1)

    methods = {"skdl": lambda: classifier.predict_proba(x), "bare torch": bare}
    times = common.interleaved(methods, 2 * repetitions)
    return [Figure("predict", "2,000 images", "skdl over bare torch", common.ratio(times, "skdl", "bare torch"), 1.0)]


def digits_figures() -> list[Figure]:
    X, y = load_digits(return_X_y=True)
    wrong, seconds = 0, []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        started = common.clock()
        classifier = CNNClassifier(image_shape=(8, 8), random_state=0, device="cpu").fit(X[train], y[train])
        seconds.append(common.clock() - started)
        wrong += int((classifier.predict(X[test]) != y[test]).sum())
    return [
        Figure("digits", "1,797 x 8 x 8", "error, %", 100 * wrong / len(y), 0.8),
        Figure("digits", "1,797 x 8 x 8", "seconds of a fold", float(np.median(seconds)), 20.0),
    ]


def tuning_figures() -> list[Figure]:
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8)
    backbone = CNNClassifier(random_state=0, device="cpu").fit(X[y < 5], y[y < 5]).network_
    settings: dict[str, dict[str, object]] = {
        "from scratch": {},
        "all layers frozen": {"backbone": backbone, "freeze": "all"},
        "first layer frozen": {"backbone": backbone, "freeze": 1},
        "gradual": {"backbone": backbone, "freeze": "gradual"},
        "no layer frozen": {"backbone": backbone},
    }
    errors: dict[str, list[float]] = {name: [] for name in settings}
    for draw in range(TUNING_DRAWS):
        rng = np.random.default_rng(draw)
        train = np.concatenate([rng.permutation(np.flatnonzero(y == label))[:50] for label in range(5, 10)])
        test = np.setdiff1d(np.flatnonzero(y >= 5), train)
        for name, parameters in settings.items():
            classifier = CNNClassifier(random_state=draw, device="cpu", **parameters).fit(X[train], y[train])
            errors[name].append(float(np.mean(classifier.predict(X[test]) != y[test])))
    case = "digits 0-4 to 5-9"
    means = {name: float(np.mean(error)) for name, error in errors.items()}
    figures = [Figure("tuning", case, f"{name}, error, %", 100 * mean) for name, mean in means.items()]
    ratio = means["all layers frozen"] / means["from scratch"]
    return [*figures, Figure("tuning", case, "all layers frozen over from scratch", ratio, 0.75)]


def image_figures(path: Path, n_rows: int) -> list[Figure]:
    data = np.load(path)
    x, y, n_train = data["x"], data["y"], int(data["n_train"])
    n_rows = min(n_rows, n_train)
    started = common.clock()
    classifier = CNNClassifier(random_state=0, device="cpu").fit(x[:n_rows], y[:n_rows])
    fit_seconds = common.clock() - started
    error = float(np.mean(classifier.predict(x[n_train:]) != y[n_train:]))
    network = three_blocks(1 if x.ndim == 3 else x.shape[3], len(classifier.classes_), pools_first=False)
    # One epoch is enough to know how long twelve take.
    epoch = common.seconds(lambda: fit_by_hand(network, x[:n_rows], y[:n_rows], 1))
    case = f"{path.stem}, {n_rows:,} images"
    return [
        Figure("images", case, "error, %", 100 * error),
        Figure("images", case, "time over 12 epochs by hand", fit_seconds / (REFERENCE_EPOCHS * epoch), 1.5),
        Figure("images", case, "seconds", fit_seconds),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="fit,predict,digits", help="parts to run, separated by commas")
    parser.add_argument("--images", type=Path, action="append", default=[], help="npz file of images")
    parser.add_argument("--rows", type=int, default=10_000, help="images of the file to train on")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the figures: .csv, or Markdown")
    parser.add_argument("--cpu-time", action="store_true", help="time by the time on the processor")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        common.clock = time.process_time
    print(common.machine(), "\n")
    report = Report()
    parts: dict[str, Callable[[], list[Figure]]] = {
        "fit": lambda: fit_figures(arguments.repetitions),
        "predict": lambda: predict_figures(arguments.repetitions),
        "digits": digits_figures,
        "tuning": tuning_figures,
    }
    for name in arguments.only.split(","):
        if name:
            report.add(name, parts[name]())
    for path in arguments.images:
        report.add("images", image_figures(path, arguments.rows))
    print(report.summary())
    if arguments.out:
        report.write(arguments.out)


if __name__ == "__main__":
    main()
