"""Shared by the tests of encodings."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skdl.data.tables.table_encoder import TableEncoder


@pytest.fixture
def encode():
    """Encode ``new`` (X itself by default) by what the given rows of X teach: numbers (n, D) and levels (n, E)."""

    def encode(X, new=None, *, rows=None, weight=None, scaling=None, embedding=None, y=None):
        rows = np.arange(X.shape[0]) if rows is None else np.asarray(rows)
        y = np.arange(X.shape[0]) % 2 if y is None else y
        weight = None if weight is None else np.asarray(weight, dtype=float)[rows]
        encoder = TableEncoder(scaling, embedding, np.float64).fit(X, y[rows], rows, weight, classification=True)
        table = encoder.transform(X if new is None else new)
        values, codes = table.slice(0, len(table))
        assert values.shape[1] == encoder.n_outputs
        return values.numpy(), None if codes is None else codes.numpy()

    return encode


@pytest.fixture
def encode_column(encode):
    """Encode a frame of one pandas series."""

    def encode_column(column, new=None, **settings):
        frame, new = (None if c is None else pd.Series(c, name="c").to_frame() for c in (column, new))
        return encode(frame, new, **settings)[0]

    return encode_column


@pytest.fixture
def save(tmp_path):
    """Write images as PNG files, or in another format; their paths."""

    def save(images, suffix="png", **options):
        paths = []
        for i, image in enumerate(images):
            image = image if isinstance(image, Image.Image) else Image.fromarray(image)
            paths.append(str(tmp_path / f"{i}.{suffix}"))
            image.save(paths[-1], **options)
        return paths

    return save
