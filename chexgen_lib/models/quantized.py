"""Weights of 8 bits, for sampling on a CPU."""

import copy
import warnings
from typing import TypeVar

import torch
from torch import nn

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.transformer import Block, ChexGenTransformer

Model = TypeVar("Model", ChexGenTransformer, ControlledTransformer)


def int8_weights(transformer: Model) -> Model:
    """A copy of a trained transformer whose blocks multiply in int8, for sampling on a CPU.

    torch's dynamic quantisation: one scale for each weight matrix, and one for the activations of each product, so
    that an image depends, within that rounding, on what shares its batch. `benchmarks/sampler_speed_cpu.csv` says how
    much faster it is and how near to float32. The copy can be neither trained nor saved: keep the original.

    Raises:
        ValueError: if the transformer is not in float32 on a CPU, or is such a copy already.
    """
    if transformer.device.type != "cpu" or transformer.dtype != torch.float32:
        raise ValueError(f"int8 weights are for float32 on a CPU, not {transformer.dtype} on {transformer.device}")
    blocks = [module for module in transformer.modules() if isinstance(module, Block)]
    if not isinstance(blocks[0].attn.qkv, nn.Linear):
        raise ValueError("the transformer's weights are int8 already")
    result = copy.deepcopy(transformer).eval().requires_grad_(False)
    with warnings.catch_warnings():
        # torch names torchao its successor, which on a CPU gains nothing unless compiled; the lock file pins torch.
        warnings.simplefilter("ignore")
        for module in result.modules():
            if isinstance(module, Block):
                torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8, inplace=True)
    result.save_pretrained = _refuse
    return result


def _refuse(*_, **__) -> None:
    raise ValueError("int8 weights are for sampling and are not saved: save the transformer that they were made from")
