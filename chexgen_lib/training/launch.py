"""A stage's training in several processes: `chexgen train` under a launcher.

The profile's `launch` is the command that starts the processes, such as `accelerate launch --config_file
conf/accelerate/ddp.yaml`; stages hand it down as the environment variable LAUNCH, since it changes no result.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import write_json
from chexgen_lib.training.config import TrainingConfig, TrainingError

LAUNCH = "CHEXGEN_LAUNCH"
FOLDER = ".launched"  # in a stage's folder: what the processes read and write


def launch_training(model: ChexGenTransformer, config: TrainingConfig, stage: Path) -> Path | None:
    """Train in the processes that the profile asks for; None where it asks for none.

    Called again after an interruption, the processes resume; once they are done, they train nothing.

    Args:
        model: untrained or continued.
        stage: folder of the stage, beside that of the cohort, whose cache has the stage's name.

    Returns:
        the folder with the final checkpoint, for `trainer.train`.

    Raises:
        TrainingError: if the processes fail; they say why themselves.
    """
    if not (command := os.environ.get(LAUNCH)):
        return None
    folder = stage / FOLDER
    model.save_pretrained(folder / "untrained")
    write_json(asdict(config), folder / "settings.json")
    cache = stage.parent / "cohort" / f"{stage.name}_train"
    options = ["--settings", folder / "settings.json", "--weights", folder / "untrained", "--out", folder]
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    try:
        subprocess.run([*words, "-m", "chexgen_lib.cli.main", "train", cache, *options], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TrainingError(
            f"the processes of {command!r} failed ({error}): see above for the cause, and run the stage again to "
            "resume; launch=null trains in one process"
        ) from error
    return folder
