"""Saving of networks with skops, which knows arrays but not tensors."""

from __future__ import annotations

import copyreg
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class SavedModule(nn.Module):
    """A module that skops can save. Pickles and copies are those of any module.

    Its state is that of modules without tensors, and the tensors as arrays by their names.
    """

    def _kept_state(self) -> dict[str, Any]:
        """The attributes that are worth keeping."""
        return self.__dict__

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg.__newobj__, (type(self),), self._kept_state()  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        saved: dict[str, Any] = {}
        return _Bare(saved).of(self, "").__dict__ | {"saved": saved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("saved", {})
        super().__setstate__(state)
        tensors: dict[int, Tensor] = {}
        for name, array in saved.items():
            if id(array) not in tensors:
                tensors[id(array)] = _as_tensor(array)
            place, _, last = name.rpartition(".")
            module = self.get_submodule(place)
            places: dict[str, Any] = module._parameters if last in module._parameters else module._buffers
            places[last] = tensors[id(array)]


class _Bare:
    """Takes the tensors out of modules, and puts them into ``saved``. What stands in several places stays one."""

    def __init__(self, saved: dict[str, Any]) -> None:
        self.saved = saved
        self.modules: dict[int, nn.Module] = {}
        self.arrays: dict[int, Any] = {}

    def of(self, module: nn.Module, prefix: str) -> nn.Module:
        """A module without its tensors."""
        if id(module) in self.modules:
            return self.modules[id(module)]
        bare = self.modules[id(module)] = type(module).__new__(type(module))
        state = module._kept_state() if isinstance(module, SavedModule) else module.__dict__
        bare.__dict__ = state | {
            "_parameters": self._taken(module._parameters, prefix),
            "_buffers": self._taken(module._buffers, prefix),
            "_modules": {
                name: None if child is None else self.of(child, f"{prefix}{name}.")
                for name, child in module._modules.items()
            },
        }
        return bare

    def _taken(self, tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
        for name, tensor in tensors.items():
            if tensor is not None:
                self.saved[prefix + name] = self.arrays.setdefault(id(tensor), _as_array(tensor))
        return dict.fromkeys(tensors)


def _as_array(tensor: Tensor) -> dict[str, Any]:
    """The numbers of a tensor in the order in which they lie in memory, and which axes these are."""
    strides = tensor.stride()
    axes = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
    numbers = tensor.detach().cpu().permute(axes).numpy()
    is_parameter = isinstance(tensor, nn.Parameter)
    return {"numbers": numbers, "axes": axes, "is_parameter": is_parameter, "is_trained": tensor.requires_grad}


def _as_tensor(array: dict[str, Any]) -> Tensor:
    tensor = torch.tensor(array["numbers"]).permute(np.argsort(array["axes"]).tolist())
    return nn.Parameter(tensor, requires_grad=array["is_trained"]) if array["is_parameter"] else tensor
