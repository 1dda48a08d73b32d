import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from skdl.data.table import DenseTable, SparseTable
from skdl.engine.predict import CHUNK_MULTIPLE, network_outputs
from skdl.nn.dense import CHUNK_NUMBERS, DenseModule
from skdl.nn.network import Ensemble
from skdl.nn.periodic import PeriodicEmbedding

#: Rows computed at a time by a network whose widest layer has 50 units.
CHUNK_ROWS = CHUNK_NUMBERS // 50 // CHUNK_MULTIPLE * CHUNK_MULTIPLE


@pytest.fixture(scope="module", params=[None, PeriodicEmbedding(3)], ids=["plain", "periodic"])
def network(make, request):
    # The widest layer is the hidden one, or the 48 cosines that are not wider.
    return make.plan(normalization="batch", embeddings=((4, 2),), hidden=(50, 20), periodic=request.param).architecture


@pytest.fixture(scope="module")
def module(network):
    return DenseModule.from_vector(
        network, network.initial(torch.Generator().manual_seed(0), torch.float32), dropout=0.5
    )


@pytest.fixture(scope="module")
def table(make):
    return make.table(make.plan(embeddings=((4, 2),)), 2 * CHUNK_ROWS + 3)


@pytest.mark.parametrize("n_rows", [1, 7, 8, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 3])
def test_outputs__then_those_of_the_module(module, table, n_rows):
    part = DenseTable(*table.slice(0, n_rows))
    outputs = network_outputs(module, part)
    assert outputs.shape == (n_rows, 3) and outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, module(part.values, part.codes).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 3, 8, 13])
def test_outputs__when_rows_have_other_company__then_the_same(module, table, n_rows):
    everything = network_outputs(module, table)
    for start in (0, 5, CHUNK_ROWS - 2):
        alone = network_outputs(module, DenseTable(*table.slice(start, start + n_rows)))
        np.testing.assert_allclose(alone, everything[start : start + n_rows], rtol=1e-6, atol=1e-7)


def test_outputs__when_table_is_sparse__then_as_dense(make):
    network = make.plan().architecture
    module = DenseModule.from_vector(network, network.initial(torch.Generator().manual_seed(0), torch.float32))
    values = make.table(make.plan()).values.relu()
    sparse = SparseTable(sp.csr_array(values.numpy()))
    np.testing.assert_array_equal(network_outputs(module, sparse), network_outputs(module, DenseTable(values)))


def test_outputs__when_ensemble__then_those_of_each_member(make, table):
    network = make.plan(embeddings=((4, 2),)).architecture
    members = [
        DenseModule.from_vector(network, network.initial(torch.Generator().manual_seed(seed), torch.float32))
        for seed in range(3)
    ]
    outputs = network_outputs(Ensemble(members), table)
    assert outputs.shape == (3, len(table), 3)
    for output, member in zip(outputs, members, strict=True):
        np.testing.assert_array_equal(output, network_outputs(member, table))


GROWTH_OF_LATER_CHUNKS = """
import resource
from types import SimpleNamespace
import torch
from skdl.data.table import DenseTable
from skdl.engine.predict import network_outputs

def compute(module, x, codes):
    ones = torch.ones(3_000_000)
    large = ones * 2
    return large[: len(x)].reshape(-1, 1) + 1

def peak(n_chunks):
    table = DenseTable(torch.zeros(4 * n_chunks, 1))
    network_outputs(SimpleNamespace(chunk_rows=4, n_multiplications=0, n_products=1), table, compute=compute)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = [peak(20), peak(20)][-1]
print(peak(120) - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is another one elsewhere")
def test_outputs__when_there_are_more_chunks__then_no_more_memory_than_one_takes():
    command = [sys.executable, "-c", GROWTH_OF_LATER_CHUNKS]
    more = int(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    # A chunk takes two tensors of 12 MB, and there are 100 chunks more.
    assert more < 10 * 24e6


@pytest.mark.usefixtures("two_threads")
def test_outputs__then_surroundings_stay(module, table):
    before = torch.get_rng_state()
    network_outputs(module, table)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
