"""A training run in words, to set beside the paper's (`paper.training.beside`)."""

from chexgen_lib.training.config import TrainingConfig


def describe(config: TrainingConfig, pairs: int, model: str, resolution: int) -> dict[str, str]:
    """Settings of a run under the names of ED Table 4.

    Args:
        pairs: number of training pairs.
        model: its size, in words.
        resolution: of the images, in pixels.
    """
    batch = config.batch_size * config.gradient_accumulation
    return {
        "model": model,
        "resolution": f"{resolution} px",
        "pairs": f"{pairs:,}",
        "batch": str(batch),
        "epochs": f"{config.steps * batch / pairs:.1f}",
        "learning rate": f"{config.learning_rate:g}, {config.schedule}",
        "weight decay": f"{config.weight_decay:g}",
        "clip": f"{config.clip_norm:g}",
    }
