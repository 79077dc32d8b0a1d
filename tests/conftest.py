"""Fixtures of all tests."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from chexgen_lib.diffusion.schedulers import ddim_scheduler, flow_dpm_solver_scheduler
from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real radiographs beside the repository; a test that needs it is skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared folder")
    return folder


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Callable[[], None]:
    """No test sees what an accelerator of another one shares; called, does away with that of the same test."""

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    reset()
    return reset


@pytest.fixture(scope="module")
def pipeline() -> ChexGenPipeline:
    """A pipeline of a few thousand parameters, as wired as the real one."""
    torch.manual_seed(0)
    tokenizer, encoder = load_text_encoder("minilm")
    transformer = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384).eval()
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    vae = new_autoencoder((8, 8, 8)).eval()
    pipe = ChexGenPipeline(transformer, vae, encoder, tokenizer, ddim_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def flow(pipeline) -> ChexGenPipeline:
    """The same pipeline, its transformer as if trained as a rectified flow."""
    transformer = copy.deepcopy(pipeline.transformer)
    transformer.register_to_config(objective="rectified_flow")
    parts = {**pipeline.components, "transformer": transformer, "scheduler": flow_dpm_solver_scheduler()}
    return ChexGenPipeline(**parts)


@pytest.fixture(scope="module")
def controlled(pipeline) -> ChexGenPipeline:
    """The same pipeline with a control adapter that has learnt something."""
    torch.manual_seed(1)
    transformer = ControlledTransformer.on(pipeline.transformer, 1).eval()
    torch.nn.init.normal_(transformer.controlnet[0].after_proj.weight, std=0.3)
    pipe = ChexGenPipeline(**{**pipeline.components, "transformer": transformer})
    pipe.set_progress_bar_config(disable=True)
    return pipe
