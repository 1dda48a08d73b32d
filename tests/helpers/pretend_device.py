"""A device that is not there: tensors that say they are on it, and refuse to be mixed with those of the processor.

They are held by the processor, which does the arithmetic. What is tested so is all that differs between devices but
the arithmetic: where tensors are made, moved and mixed, and which random streams are drawn from.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

#: Whether torch can be told of a device by Python alone.
IS_POSSIBLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
NAME = "pretend"

#: Torch itself moves what is mixed here.
MOVING = {"aten::_to_copy", "aten::copy_"}


class Backend:
    """What torch asks the module of a device."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)


@cache
def _register() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())


class Elsewhere(Tensor):
    """A tensor that says it is on the device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {})

    # Torch waits for the device and copies in these, and does not ask the tensor.
    def item(self) -> Any:
        return self.held.item()

    def tolist(self) -> Any:
        return self.held.tolist()

    def __float__(self) -> float:
        return float(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __bool__(self) -> bool:
        return bool(self.held)

    def numpy(self, **settings: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy.")

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_moved_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_moved_index(index), value)


def _moved_index(index: Any) -> Any:
    """An index as torch moves it to the device of what is indexed."""
    if isinstance(index, tuple):
        return tuple(_moved_index(part) for part in index)
    if isinstance(index, list | np.ndarray):
        index = torch.from_numpy(np.asarray(index))
    return Elsewhere(index) if isinstance(index, Tensor) and not isinstance(index, Elsewhere) else index


def _called(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What one of torch's operations gives, on the device if its arguments or its ``device`` say so."""
    name = function._schema.name
    if name == "aten::to":
        with _Making():
            return function.decompose(*args, **kwargs)
    leaves = tree_leaves((args, kwargs))
    here = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Elsewhere)]
    is_elsewhere = any(isinstance(leaf, Elsewhere) for leaf in leaves)
    if is_elsewhere and name not in MOVING and any(tensor.ndim > 0 for tensor in here):
        raise RuntimeError(f"Expected all tensors of {function} to be on the same device.")
    if name == "aten::copy_":
        is_elsewhere = isinstance(args[0], Elsewhere)
    if kwargs.get("device") is not None:
        is_elsewhere = torch.device(kwargs["device"]).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    for generator in (leaf for leaf in leaves if isinstance(leaf, torch._C.Generator)):
        if (generator._cdata in _Generators.elsewhere) != is_elsewhere:
            raise RuntimeError(f"Expected the generator of {function} to be on the device of its result.")
    known = {id(tensor): tensor for tensor in here}

    def unwrapped(tensor: Elsewhere) -> Tensor:
        known[id(tensor.held)] = tensor
        return tensor.held

    def wrapped(tensor: Tensor) -> Tensor:
        # What an operation changes in place it gives back itself.
        new = Elsewhere(tensor) if is_elsewhere and id(tensor) not in known else tensor
        return known.get(id(tensor), new)

    args, kwargs = tree_map_only(Elsewhere, unwrapped, (args, kwargs))
    return tree_map_only(Tensor, wrapped, function(*args, **kwargs))


class _Making(TorchDispatchMode):
    """Has tensors that are made on the device be made by the processor."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {})


class _GeneratorElsewhere(torch.Generator):
    """A random stream that says it is on the device."""

    @property
    def device(self) -> torch.device:
        return torch.device(NAME, 0)


class _Generators(type):
    """What stands in place of ``torch.Generator``, which would look for the device."""

    real = torch.Generator
    #: Addresses of what torch keeps of those on the device: it hands them on without their class.
    elsewhere: set[int] = set()

    def __call__(cls, device: Any = "cpu") -> torch.Generator:
        if torch.device(device).type != NAME:
            generator = cls.real()
            cls.elsewhere.discard(generator._cdata)
            return generator
        generator = _GeneratorElsewhere()
        cls.elsewhere.add(generator._cdata)
        return generator

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.real)


class _Generator(metaclass=_Generators):
    pass


def _made(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.tensor`` or ``torch.as_tensor``, which make things on a device without asking."""

    def made(data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        if isinstance(data, Tensor):
            return data.to(device=device or data.device, dtype=dtype or data.dtype)
        tensor = make(data, dtype=dtype)
        return tensor if device is None else tensor.to(device)

    return made


@contextlib.contextmanager
def as_cuda() -> Iterator[None]:
    """Have skdl take the device for "cuda"."""
    from skdl.engine.device import resolve_device

    _register()
    run = threading.Thread.run

    def run_making(thread: threading.Thread) -> None:
        with _Making():
            run(thread)

    def resolve(device: str) -> str:
        return f"{NAME}:0" if device == "cuda" else resolve_device(device)

    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("skdl.") and getattr(module, "resolve_device", None) is resolve_device
    ]
    with contextlib.ExitStack() as stack:
        for module in users:
            stack.enter_context(mock.patch.object(module, "resolve_device", resolve))
        for owner, name, value in (
            (torch, "Generator", _Generator),
            (torch, "tensor", _made(torch.tensor)),
            (torch, "as_tensor", _made(torch.as_tensor)),
            # Wrapped tensors know no other way to be without gradients.
            (torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()),
            (threading.Thread, "run", run_making),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_Making())
        yield
