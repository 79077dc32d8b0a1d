"""A pipeline of a few thousand parameters, as wired as the real one."""

import pytest
import torch

from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline, ddim_scheduler


@pytest.fixture(scope="module")
def pipeline() -> ChexGenPipeline:
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
