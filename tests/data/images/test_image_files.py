"""Image files: decoded when they are drawn, by threads, and named with their rows where they cannot be."""

import os
import pickle
import threading
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from skdl.data.images import image_files
from skdl.data.images.image_files import ImageFiles, checked_paths, converted, files_shape, resized


def noise(*shape):
    return np.random.RandomState(0).randint(256, size=shape).astype(np.uint8)


def test_files_have_the_shape_of_the_first_one(save):
    paths = save([noise(4, 5, 3), noise(7, 7)])
    assert files_shape(paths) == (4, 5, 3)
    assert files_shape(paths, (8, 6)) == (8, 6, 3)


def test_repeated_rows_are_decoded_once(save, monkeypatch):
    table = ImageFiles(save(noise(3, 4, 4)))
    decoded = []
    decode = ImageFiles._decode
    monkeypatch.setattr(ImageFiles, "_decode", lambda self, row, out: (decoded.append(row), decode(self, row, out)))
    values, _ = table.take(torch.tensor([2, 0, 2, 2, 0]))
    assert sorted(decoded) == [0, 2]
    assert torch.equal(values, torch.from_numpy(noise(3, 4, 4)).reshape(3, -1)[[2, 0, 2, 2, 0]])


def test_files_of_several_sizes_are_resized_as_pillow_images_are(save):
    images = [Image.fromarray(noise(h, w, 3)) for h, w in [(8, 8), (12, 6), (5, 4)]]
    paths = save(images)
    table = ImageFiles(paths, resize=(5, 4))
    expected = [resized(np.asarray(image)[np.newaxis], (5, 4)).reshape(-1) for image in images]
    assert_array_equal(table.slice(0, 3)[0], expected)


def test_a_large_jpeg_is_resized_to_almost_the_same_image(save):
    waves = 127 * (1 + np.sin(np.linspace(0, 6, 512)) * np.cos(np.linspace(0, 9, 512))[:, None])
    (path,) = save([np.stack([waves] * 3, axis=-1).astype(np.uint8)], "jpg", quality=95)
    fast = ImageFiles([path], resize=(16, 16)).slice(0, 1)[0].numpy().astype(int)
    exact = resized(np.asarray(Image.open(path))[np.newaxis], (16, 16)).reshape(1, -1).astype(int)
    assert np.abs(fast - exact).max() <= 3


def test_gray_files_among_coloured_ones_are_coloured(save):
    gray = noise(4, 5)
    table = ImageFiles(save([noise(4, 5, 3), gray]))
    assert_array_equal(table.take(torch.tensor([1]))[0].view(4, 5, 3), np.stack([gray] * 3, axis=-1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(save, mode):
    # Black all over, and only where it is opaque is there anything to see.
    alpha = noise(4, 5) // 128 * 255
    black = Image.fromarray(np.stack([np.zeros_like(alpha)] * 3 + [alpha], axis=-1))
    image = black.convert(mode)
    n_channels = 1 if mode == "LA" else 3
    expected = np.repeat(255 - alpha[..., np.newaxis], n_channels, axis=-1)
    table = ImageFiles(save([image]))
    assert table.image_shape == (4, 5, n_channels)
    assert_array_equal(table.slice(0, 1)[0].view(4, 5, n_channels), expected)
    half = Image.fromarray(np.full((1, 1, 4), [100, 0, 200, 51], np.uint8))
    assert_array_equal(np.asarray(converted(half, "RGB")), [[[224, 204, 244]]])


def test_a_gif_has_colours_however_many_it_uses(tmp_path):
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    paths = [tmp_path / "all.gif", tmp_path / "few.gif"]
    for path, image in zip(paths, (gray, gray // 2 + 100), strict=True):
        Image.fromarray(image).save(path)
    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert (first.mode, second.mode) == ("L", "P")

    table = ImageFiles(checked_paths(paths))

    assert table.image_shape == (16, 16, 3)
    expected = np.stack([gray, gray // 2 + 100])[..., np.newaxis]
    assert_array_equal(table.slice(0, 2)[0].view(2, 16, 16, 3), np.repeat(expected, 3, axis=-1))


def test_threads_are_bounded_and_started_lazily(save):
    image_files._threads.cache_clear()
    before = set(threading.enumerate())
    table = ImageFiles(save(noise(40, 4, 4)))
    assert set(threading.enumerate()) <= before
    table.slice(0, 40)
    assert 1 <= len(set(threading.enumerate()) - before) <= min(8, os.cpu_count())


def test_file_tables_pickle_and_know_their_equals(save):
    paths = checked_paths(save(noise(9, 4, 5)))
    table = ImageFiles(paths)
    table.slice(0, 2)
    copy = pickle.loads(pickle.dumps(table))
    assert torch.equal(copy.slice(0, 9)[0], table.slice(0, 9)[0])
    assert (
        copy.equals(table)
        and hash(copy.fingerprint()) == hash(table.fingerprint())
        and copy.fingerprint() == table.fingerprint()
    )
    assert not table.equals(ImageFiles(paths[::-1]))
    assert not table.equals(ImageFiles(paths, resize=(4, 5)))
    assert not table.equals(ImageFiles(paths, resize=(3, 3)))
    assert not table.equals(SimpleNamespace(paths=paths))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_decodes_with_threads_of_its_own(save):
    table = ImageFiles(save(noise(9, 4, 5)))
    expected = table.slice(0, 9)[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(table.slice(0, 9)[0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_files_are_not_kept_in_memory(save):
    n, h, w = 300, 40, 50
    rng = np.random.RandomState(0)
    paths = save(rng.randint(256, size=(n, h, w, 3), dtype=np.uint8), compress_level=1)
    table = ImageFiles(paths)
    table.take(torch.arange(10))
    tracemalloc.start()
    for start in range(0, n, 10):
        table.take(torch.arange(start, start + 10))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # torch's own memory is not traced: what Pillow and numpy hold is at most an image or two a thread.
    assert kept < 10 * h * w * 3 and peak < 60 * h * w * 3 < n * h * w * 3 / 4
    assert len(pickle.dumps(table)) < 200 * n


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unreadable_file_is_named_with_its_row(save, tmp_path):
    paths = save(noise(3, 30, 30))
    (tmp_path / "1.png").write_text("no image")
    content = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(content[: len(content) // 2])
    table = ImageFiles(paths)
    for row in (1, 2):
        with pytest.raises(ValueError, match=rf"{row}\.png' \(row {row} of X\) cannot be read.*Repair"):
            table.take(torch.tensor([0, row]))
    with pytest.raises(ValueError, match=r"1\.png' \(row 0 of X\) cannot be read"):
        files_shape(paths[1:])
    os.remove(paths[0])
    with pytest.raises(ValueError, match=r"0\.png' \(row 0 of X\) cannot be read"):
        table.slice(0, 1)


def test_a_file_beyond_the_limit_of_pillow_is_no_broken_one(save, monkeypatch):
    paths = save(noise(2, 8, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(ValueError, match=r"row 1 of X\) cannot be read: .*attack\. Make it smaller, or raise PIL"):
        ImageFiles(paths, (8, 8, 1)).take(torch.tensor([1]))


def test_a_file_of_another_size_is_named_with_its_row(save):
    table = ImageFiles(save([noise(4, 5), noise(4, 5), noise(6, 5)]))
    with pytest.raises(ValueError, match=r"2\.png' \(row 2 of X\) has 6 x 5 pixels.* had 4 x 5\. Set resize=\(4, 5\)"):
        table.take(torch.tensor([1, 2]))


def test_a_coloured_file_among_gray_ones_is_named_with_its_row(save):
    table = ImageFiles(save([noise(4, 5), noise(4, 5, 3)]))
    with pytest.raises(ValueError, match=r"1\.png' \(row 1 of X\) is coloured.* gray\. Convert"):
        table.slice(0, 2)
