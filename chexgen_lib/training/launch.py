"""A stage's training in several processes: `chexgen train` under a launcher.

The profile's `launch` is the command that starts the processes, such as `accelerate launch --config_file
conf/accelerate/ddp.yaml`; stages hand it down as the environment variable LAUNCH, since it changes no result.
"""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

LAUNCH = "CHEXGEN_LAUNCH"
FOLDER = ".launched"  # in a stage's folder: what the processes read and write


def launch_training(model, config, stage: Path) -> Path | None:
    """Train in the processes that the profile asks for; None where it asks for none.

    Called again after an interruption, the processes resume; once they are done, they train nothing.

    Args:
        model: the untrained or continued `ChexGenTransformer`.
        config: its `TrainingConfig`.
        stage: folder of the stage, beside that of the cohort, whose cache has the stage's name.

    Returns:
        the folder with the final checkpoint, for `trainer.train`.

    Raises:
        TrainingError: if the processes fail; they say why themselves.
    """
    from chexgen_lib.training.config import TrainingError

    if not (command := os.environ.get(LAUNCH)):
        return None
    folder = stage / FOLDER
    model.save_pretrained(folder / "untrained")
    (folder / "settings.json").write_text(json.dumps(asdict(config)))
    cache = stage.parent / "cohort" / f"{stage.name}_train.safetensors"
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
