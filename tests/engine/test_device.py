import os
import subprocess
import sys

import pytest
import torch

from skdl.engine.device import SMALL_PRODUCT, Streams, flush_denormals, resolve_device, threads_for


def test_resolve_device__when_cpu__then_cpu():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_resolve_device__when_a_torch_device__then_its_name(device):
    assert resolve_device(torch.device(device)) == resolve_device(device) == "cpu"


@pytest.mark.parametrize("device", ["gpu", "tpu", "", "meta", "xla", "cuda:one", "CPU "])
def test_resolve_device__when_unknown__then_error_lists_the_choices(device):
    with pytest.raises(ValueError, match=f"Unknown device {device!r}. Use 'auto', 'cpu', 'cuda', "):
        resolve_device(device)


@pytest.mark.parametrize("device", ["cuda:99", "cpu:1", "mps:7"])
def test_resolve_device__when_not_there__then_error_names_the_remedy(device):
    with pytest.raises(ValueError, match=f"device='{device}' is not available.*Use device='auto'"):
        resolve_device(device)
    with pytest.raises(ValueError, match=f"device='{device}' is not available.*Use device='auto'"):
        resolve_device(torch.device(device))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("multiplications", "inside"), [(1, 1), (SMALL_PRODUCT - 1, 1), (SMALL_PRODUCT, 2)])
def test_threads_for__then_small_work_has_one_thread_and_the_setting_comes_back(multiplications, inside):
    with threads_for(multiplications):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), threads_for(multiplications):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def subnormal():
    """A number of single precision below the smallest normal one, as torch computes it."""
    return float(torch.full((64,), torch.finfo(torch.float32).tiny).div_(2).sum())


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush subnormal numbers")
def test_without_subnormals__then_they_are_zero_and_the_setting_comes_back():
    assert subnormal() > 0
    with flush_denormals():
        assert subnormal() == 0
        with flush_denormals():
            assert subnormal() == 0
        assert subnormal() == 0
    assert subnormal() > 0
    with pytest.raises(ZeroDivisionError), flush_denormals():
        raise ZeroDivisionError
    assert subnormal() > 0


def test_streams__then_three_different_ones_that_the_seed_fixes():
    def draws(seed):
        streams = Streams(seed, "cpu")
        return [torch.rand(4, generator=g).tolist() for g in (streams.init, streams.shuffle, streams.noise)]

    assert draws(0) == draws(0)
    distinct = {tuple(draw) for seed in range(4) for draw in draws(seed)}
    assert len(distinct) == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent():
    script = """
import os, signal, sys, torch, skdl.engine.device

torch.set_num_threads(2)
numbers = torch.ones(10**6)
assert numbers.exp().sum() > 0  # by threads, which have been started now
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    numbers.exp().sum()
    os._exit(0)
sys.exit(os.waitpid(pid, 0)[1] != 0)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "MKL"))}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=100).returncode == 0
