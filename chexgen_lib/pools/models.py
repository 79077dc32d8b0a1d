"""The models of a run as the pools are sampled with them: in few steps, and in place of the foundation its student."""

from pathlib import Path

from chexgen_lib.diffusion.schedulers import few_steps
from chexgen_lib.models.foundation import load_transformer
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.text import count_tokens
from chexgen_lib.pools.requests import Fits
from chexgen_lib.sampling.generators import Parts, open_generator
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from chexgen_lib.storage import digest


def open_stage(
    root: str | Path, stage: str, parts: Parts, *, int8: bool = False, student: str | None = None
) -> ChexGenPipeline:
    """The pipeline of the model that a stage of a run left, on the fastest device.

    It samples by DPM-Solver++, or, where it is distilled, in its own steps and without guidance (`generate.fitting`).

    Args:
        root: of the run.
        stage: whose folder in the run holds `transformer`: "pretraining", "alignment" or "annotation_to_image".
        parts: the frozen ones.
        int8: with weights of 8 bits, for a CPU.
        student: samples where the stage's model is the shipped foundation, which it has learned from; a name that
            `load_transformer` takes. None: the stage's model samples always.

    Raises:
        ValueError: if the run holds no such model, or the student cannot be loaded.
    """
    pipeline = open_generator(Path(root) / stage / "transformer", parts)
    if student is not None and digest(pipeline.transformer) == digest(load_transformer()):
        pipeline = assemble(load_transformer(student), parts.autoencoder, parts.text_encoder)
    if pipeline.distilled_steps is None:
        pipeline.scheduler = few_steps(pipeline.scheduler)
    if int8:
        pipeline.transformer = int8_weights(pipeline.transformer)
    return pipeline


def fits_of(pipeline: ChexGenPipeline) -> Fits:
    """Which prompts a pipeline's model reads whole."""
    limit = len(pipeline.transformer.null_caption)
    return lambda prompts: [n <= limit for n in count_tokens(pipeline.tokenizer, prompts)]
