"""A whole training of a stage, from an untrained or continued model to its weights, history and error."""

import json
import os
from pathlib import Path

import polars as pl

from chexgen_lib.storage import remove, write_json
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.launch import FOLDER, launch_training
from chexgen_lib.training.run import Model, remove_checkpoints
from chexgen_lib.training.trainer import CLOCK, noise_error, path_error, train

ERRORS = "held_out_error.json"
HISTORY = {"step": pl.Int64, "loss": pl.Float64, "grad_norm": pl.Float64, "learning_rate": pl.Float64}


def train_model(
    folder: Path,
    model: Model,
    pairs: LatentCache,
    held_out: LatentCache,
    config: TrainingConfig,
    launched: Path | None = None,
) -> None:
    """Train `model` on `pairs` and save it in `folder`, with all that a notebook shows of its training.

    Writes the averaged weights as `save_pretrained` does, `history.parquet` (`HISTORY`), the trainer's `log` and
    `held_out_error.json`: `before` and `after`, on the held-out pairs (`trainer.noise_error`; of recorded paths
    `trainer.path_error`); beside `folder`, the seconds that it took (`trainer.read_seconds`).
    For `kept.kept`: called again after an interruption, it resumes from the newest checkpoint in `folder`.

    Args:
        launched: folder of the stage, in which `chexgen train` may have left a checkpoint of the same training, to
            resume from; with it, the processes that the profile asks for train (`launch.launch_training`).

    Raises:
        TrainingError: as `trainer.train`.
    """
    if not (folder / ERRORS).is_file():  # the last that is written; else it was interrupted while it tidied up
        measure = noise_error if held_out.paths is None else path_error
        before = measure(model, held_out)
        together = None if launched is None else launch_training(model, pairs, config, launched, folder)
        history = train(model, pairs, config, folder, keep_last=True, continued_from=together or launched)
        model.save_pretrained(folder)
        pl.DataFrame(history).write_parquet(folder / "history.parquet")
        write_json({"before": before, "after": measure(model, held_out)}, folder / ERRORS)
    remove_checkpoints(folder)
    remove(folder / FOLDER)
    if (folder / CLOCK).is_file():
        os.replace(folder / CLOCK, folder.parent / CLOCK)  # no part of a result that is the same bytes on every run


def keep_trained(folder: Path, untrained: Model, model: Model, history: pl.DataFrame, held_out: LatentCache) -> None:
    """Fill `folder` as `train_model` does with a model that was trained before; `untrained` is one without training."""
    model.save_pretrained(folder)
    history.write_parquet(folder / "history.parquet")
    errors = {"before": noise_error(untrained, held_out), "after": noise_error(model, held_out)}
    write_json(errors, folder / ERRORS)


def read_training(folder: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    """The history and the errors before and after training, of a folder that `train_model` filled."""
    return pl.read_parquet(folder / "history.parquet", glob=False), json.loads((folder / ERRORS).read_text())
