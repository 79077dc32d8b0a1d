"""What a sharded training (FSDP) needs beside accelerate: whole tensors out of shards, and shards of whole ones.

Under FSDP a process holds a part of each parameter, a `DTensor`, and so of its moments and its average. Everything here
leaves plain tensors as they are, so that the trainer has one path for one process, DDP and FSDP. Every process must
call these functions: each gives its part.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards, on every process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_whole(source: Tensor, target: Tensor) -> None:
    """Copy a whole tensor that every process has into one that may be sharded."""
    if isinstance(target, DTensor):
        source = distribute_tensor(source.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(source)


def whole_on_main(tensors: Iterable[Tensor], is_main: bool) -> list[Tensor]:
    """Tensors with all their shards in the main process's memory, one gathered after the other; [] elsewhere."""
    gathered = (whole(tensor) for tensor in tensors)  # a process that keeps none takes part in each all the same
    return [tensor.cpu() for tensor in gathered if is_main]


def whole_state(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict]:
    """State of model and optimiser with all shards, by the parameters' names, on the CPU; empty but in the first."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model, options=options), get_optimizer_state_dict(model, optimizers, options=options)


def load_whole_state(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], weights: dict[str, Tensor], moments: dict
) -> None:
    """Load what `whole_state` returned, which every process has; RuntimeError or KeyError where it does not fit."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, weights, options=options)
    set_optimizer_state_dict(model, optimizers, moments, options=options)
    for optimizer in optimizers:  # its pairs (betas) come back as lists, and the next checkpoint would be other bytes
        for group in optimizer.param_groups:
            group.update({key: tuple(group[key]) for key, value in optimizer.defaults.items() if type(value) is tuple})
