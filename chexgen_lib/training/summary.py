"""A training run in words, to set beside the paper's (`paper.training.beside`), and as a recipe of its weights."""

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch

from chexgen_lib.training.config import TrainingConfig, native_bf16
from chexgen_lib.training.trainer import read_seconds


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


def recipe(folder: Path, records: pl.DataFrame, config: TrainingConfig, model: str, resolution: int) -> dict[str, Any]:
    """What the weights in `folder` were made from, as JSON values; hours are those of the training alone.

    Args:
        folder: of the training, as `stages.train_model` filled it.
        records: what was trained and validated on.
        model, resolution: as in `describe`.
    """
    train = records.filter(split="train")
    batch = config.batch_size * config.gradient_accumulation
    return {
        "model": model,
        "resolution": resolution,
        "images": len(train),
        "patients": train["patient_id"].n_unique(),
        "sources": dict(train["source"].value_counts().sort("source").iter_rows()),
        "presentations": config.steps * batch,
        "hours": round(read_seconds(folder.parent) / 3600, 2),
        "machine": f"{torch.get_num_threads()} threads, {_processor()}",
        "commit": _commit(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "diffdrr")},
        "training": asdict(config),
    }


def _processor() -> str:
    """The processor's name and whether it multiplies bfloat16."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return f"{device}, {'with' if native_bf16() else 'without'} bfloat16"


def _commit() -> str | None:
    """The commit of the code, with "+" if files differ from it; None outside a repository."""
    call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
