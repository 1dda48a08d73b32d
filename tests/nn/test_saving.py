"""Modules that skops saves without their tensors."""

import copy
import pickle

import numpy as np
import skops.io
import torch
from torch import nn

from skdl.nn.saving import SavedModule


class Net(SavedModule):
    """Layers of several kinds, one of them twice, with weights that lie in memory channels last."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
        conv.weight.requires_grad_(False)
        dense = nn.Linear(3, 3)
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 3), dense, dense)
        self.tied = dense.weight
        self.nothing = None
        self.register_buffer("count", torch.tensor(3))
        self.layers(torch.ones(2, 2, 4, 4))


def saved(module):
    """The module as it comes back from a file of skops."""
    content = skops.io.dumps(module)
    return skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))


def test_the_same_tensors_come_back_to_the_same_places():
    module = Net()
    other = saved(module)
    mine, its = module.state_dict(), other.state_dict()
    assert list(mine) == list(its)
    for name, tensor in mine.items():
        assert torch.equal(its[name], tensor) and its[name].stride() == tensor.stride()
    is_trained, is_trained_there = (
        {name: p.requires_grad for name, p in net.named_parameters()} for net in (module, other)
    )
    assert is_trained == is_trained_there and not is_trained["layers.0.weight"]
    assert other.tied is other.layers[4].weight and other.layers[4] is other.layers[5] and other.nothing is None
    x = torch.ones(2, 2, 4, 4)
    assert torch.equal(other.eval().layers(x), module.eval().layers(x))


def test_saving_leaves_the_module_as_it_is():
    module = Net()
    before = copy.deepcopy(module.state_dict())
    for p in saved(module).parameters():
        p.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_state_holds_no_tensors_and_each_array_once():
    state = Net().__getstate__()
    assert all(isinstance(array["numbers"], np.ndarray) for array in state["saved"].values())
    assert state["saved"]["tied"] is state["saved"]["layers.4.weight"]
    assert all(p is None for p in state["_parameters"].values())


def test_pickles_and_copies_keep_what_refers_to_parts():
    module = Net()
    module.parts = [module.layers[0]]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.parts[0] is other.layers[0] and other.tied is other.layers[4].weight
        assert other.layers[0].weight.stride() == module.layers[0].weight.stride()
