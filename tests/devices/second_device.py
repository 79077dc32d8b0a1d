"""A second device that a process makes up, for tests without a GPU.

A tensor there says that it is on the device "second"; its numbers are on the CPU. As on a GPU, an operation refuses
tensors of both, unless that on the CPU is a single number or an index. For a process of its own, which imports this
before anything of the library: a backend of torch cannot be taken away again, and the library's choice of the fastest
device is replaced by `chosen`.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Module(_DummyBackendModule):
    """What torch asks of a device, for autocast too."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device) -> None:
        """Its random numbers are the CPU's."""

    def set_rng_state(self, state, device) -> None:
        pass


torch.inference_mode = torch.no_grad  # tensors of inference cannot be wrapped
_setup_privateuseone_for_python_backend("second", _Module())
CPU, SECOND = torch.device("cpu"), torch.device("second", 0)

from chexgen_lib.models import loading  # noqa: E402

_chosen = [CPU]


def chosen() -> torch.device:
    """The fastest device, within `fastest`."""
    return _chosen[-1]


loading.fastest_device = chosen
Accelerator.device = property(lambda self: chosen())
_prepare = Accelerator.prepare


def _prepared(accelerator: Accelerator, *parts):
    """As `Accelerator.prepare`; a moved parameter stays the optimiser's, as on a GPU."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _prepare(accelerator, *parts)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


Accelerator.prepare = _prepared

MOVES = ("aten::_to_copy", "aten::copy_")
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")


class There(torch.Tensor):
    """A tensor on the second device."""

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        layout = dict(strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=SECOND)
        return torch.Tensor._make_wrapper_subclass(cls, here.size(), **layout)

    def __init__(self, here: torch.Tensor):
        self.here = here

    def __deepcopy__(self, memo: dict) -> "There":
        if id(self) not in memo:
            memo[id(self)] = There(self.here.detach().clone()).requires_grad_(self.requires_grad)
            memo[id(self)]._is_param = getattr(self, "_is_param", False)
        return memo[id(self)]

    def __format__(self, how: str) -> str:
        return format(self.here, how)

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.here.untyped_storage()

    def tolist(self) -> list:
        return self.here.tolist()

    def new_tensor(self, values, **settings) -> "There":
        return There(self.here.new_tensor(values, **settings))

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """Within it, tensors can be made on and moved to the second device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args: tuple, kwargs: dict):
    """An operation on tensors of one device; its results are there, or where it was told to put them."""
    name = function._schema.name
    tensors: list[torch.Tensor] = []
    each_tensor(tensors.append, (args, kwargs))
    there = [x for x in tensors if isinstance(x, There)]
    left = [x for x in tensors if not isinstance(x, There) and x.dim()]
    if there and left and name not in MOVES and not (name in INDEXED and isinstance(args[0], There)):
        raise RuntimeError(f"{name}: a tensor {tuple(left[0].shape)} was left on the CPU")
    onto = kwargs.get("device")
    there_after = bool(there) if onto is None else torch.device(onto).type == SECOND.type
    if name == "aten::copy_":
        there_after = isinstance(args[0], There)
    if onto is not None and there_after:
        kwargs = {**kwargs, "device": CPU}
    whose = {id(x.here): x for x in there}
    args, kwargs = each_tensor(lambda x: x.here if isinstance(x, There) else x, (args, kwargs))
    results = function(*args, **kwargs)
    if not there_after:
        return results
    return each_tensor(lambda x: whose[id(x)] if id(x) in whose else There(x), results)


def each_tensor(change: Callable[[torch.Tensor], object], values):
    """The arguments or results of an operation, tensors changed; torch's pytree takes four times as long."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, (tuple, list)):
        return type(values)([each_tensor(change, value) for value in values])
    if isinstance(values, dict):
        return {key: each_tensor(change, value) for key, value in values.items()}
    return values


@contextmanager
def fastest() -> Iterator[torch.device]:
    """The second device, which the library takes within where it would take a GPU."""
    _chosen.append(SECOND)
    try:
        with (
            patch.object(torch, "tensor", _moving(torch.tensor)),
            patch.object(torch, "as_tensor", _moving(torch.as_tensor)),
            SecondDevice(),
        ):
            yield SECOND
    finally:
        _chosen.pop()


def _moving(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function that makes a tensor of values and then moves it: within `make`, no mode sees the move."""

    def made(values, device=None, **settings) -> torch.Tensor:
        return make(values, **settings) if device is None else make(values, **settings).to(device)

    return made


def fault_of(case: Callable[[torch.device], object], note: Callable) -> str:
    """What a case raises on the second device, or how far its array is from that of the CPU; empty if all is well.

    note: called at every call there, as `sys.settrace` does.
    """
    try:
        expected = np.asarray(case(CPU), float)
        with fastest() as device:
            sys.settrace(note)
            found = np.asarray(case(device), float)
        difference = float(np.abs(found - expected).max())
    except Exception as failure:  # noqa: BLE001  # whatever it is, the test shows it
        traceback.print_exc()
        return f"{type(failure).__name__}: {failure}"
    finally:
        sys.settrace(None)
    # Adam makes a step of a gradient's rounding, where it is next to nothing.
    return "" if difference < 5e-3 else f"differs by {difference}"
