"""A pipeline of the checkpoints that the authors of ChexGen released."""

from pathlib import Path

from chexgen_lib.diffusion.schedulers import ddim_scheduler, released_scheduler
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.released import load_released
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.sampling.pipeline import ChexGenPipeline


def released_pipeline(
    path: str | Path,
    autoencoder: str = "stabilityai/sd-vae-ft-ema",
    text_encoder: str = "DeepFloyd/t5-v1_1-xxl",
    compat: str = "paper",
    weights: str = "ema",
) -> ChexGenPipeline:
    """A pipeline of a released checkpoint.

    Args:
        path: the checkpoint, `epoch_*_step_*.pth`.
        autoencoder, text_encoder: names of the frozen parts.
        compat: "paper", or "released", which also takes the released code's sampler.
        weights: "ema" or "raw", as `models.released.load_released` takes it.

    Raises:
        CheckpointError: if the file is not a complete ChexGen checkpoint.
    """
    transformer = load_released(path, weights)
    tokenizer, encoder = load_text_encoder(text_encoder)
    scheduler = released_scheduler() if compat == "released" else ddim_scheduler()
    parts = transformer, load_autoencoder(autoencoder), encoder, tokenizer, scheduler
    return ChexGenPipeline(*parts, compat=compat, clean_captions=True)
