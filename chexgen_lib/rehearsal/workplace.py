"""A copy of the repository in a folder of its own, in which DVC runs a reduced profile: no other run is touched.

WORKPLACE/          the DAG, the notebooks, the library; profile.yaml, what is rehearsed; params.yaml, that made small
WORKPLACE/data      stand-ins of the datasets, where the profile `paper` looks for them
WORKPLACE/home      HOME of the stages: stand-ins of weights, where the libraries keep their downloads
WORKPLACE/runs      what the stages wrote
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from chexgen_lib import code_digest
from chexgen_lib.rehearsal import annotated, datasets, sizes, weights
from chexgen_lib.storage import remove, replacing, write_json
from chexgen_lib.workflow import dag
from chexgen_lib.workflow.notebooks import ROOT, NotebookError

NOTE = "made_by.json"  # the code that made the stand-ins
COPIED = ("chexgen_lib", "notebooks", "conf", "dvc.yaml", "requirements.lock", ".dvcignore")
# Settings of this user's by which libraries would look elsewhere than in HOME.
ELSEWHERE = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "DVC_ROOT")


# The generators that the paper compares ChexGen with, as a user who has their weights names them (docs/own_data.md).
RIVALS = ("+generators.RoentGen=StanfordAIMI/roent-gen-v1-0", "+generators.MINIM=data/weights/minim")


def with_rivals(given: Iterable[str]) -> list[str]:
    """The settings of a user (`settings.split`) after those of `RIVALS` that they neither change nor leave out."""
    given = list(given)
    named = {_name(setting) for setting in given}
    rivals = [setting for setting in RIVALS if _name(setting) not in named]
    left_out = {f"~{_name(setting)}" for setting in RIVALS}
    return [*rivals, *(setting for setting in given if setting.partition("=")[0] not in left_out)]


def _name(setting: str) -> str:
    return setting.lstrip("+~").partition("=")[0]


def prepare(place: Path, profile: str, overrides: Iterable[str] = RIVALS) -> None:
    """Bring a workplace up to date; stand-ins of the same code stay, and so do results.

    Args:
        overrides: settings beside the profile, as `dag.compose` takes them.

    Raises:
        NotebookError: for an unknown profile or setting, a folder of images (`curation.image_folder`), data named by a
            path outside of the repository, or a folder that holds something else.
    """
    if place.is_dir() and any(place.iterdir()) and not (place / NOTE).is_file():
        raise NotebookError(f"{place} is no workplace of this version: give a new folder, or remove it")
    if not (place / NOTE).is_file():
        write_json({}, place / NOTE)
    for name in COPIED:
        _mirror(ROOT / name, place / name)
    params = sizes.reduced(dag.compose(profile, place / "profile.yaml", overrides), dag.plain(sizes.SMALL))
    with replacing(place / "params.yaml") as partial:
        YAML().dump(params, partial)
    if images := params["curation"].get("image_folder"):
        raise NotebookError(
            f"the profile names curation.image_folder {images}: the rehearsal has no stand-ins of such a folder; name "
            "a curation.data_root instead, or rehearse another profile"
        )
    named, lungs = params["curation"]["data_root"], params["annotation_to_image"]["lung_masks"]
    for folder in filter(None, (named, lungs)):
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise NotebookError(
                f"the profile names the folder {folder}: the rehearsal writes stand-ins into its own folder only; name "
                "a folder below the repository in the profile, and link it to the data"
            )
    _outdated(place / NOTE, {datasets.__file__: [named, lungs], weights.__file__: ["home"]})
    if named:
        datasets.lay_out(place / named)
    if lungs:
        annotated.lung_masks(place / lungs)
    weights.lay_out(place, params)
    if not (place / ".dvc").is_dir():
        _run(place, "-m", "dvc", "init", "--no-scm", "--quiet")
    shutil.copy(ROOT / ".dvc/config", place / ".dvc/config")
    _run(place, "-m", "dvc", "config", "core.no_scm", "true")


def _outdated(note: Path, folders: Mapping[str, list[str | None]]) -> None:
    """Remove the folders beside `note` that other code has filled than the module that is named; notes what will."""
    now = {Path(module).stem: code_digest.of(module) for module in folders}
    before = json.loads(note.read_text()) if note.is_file() else {}
    for module, own in folders.items():
        if before.get(Path(module).stem) != now[Path(module).stem]:
            for folder in filter(None, own):
                remove(note.parent / folder)
    write_json(now, note)


def _mirror(source: Path, target: Path) -> None:
    """Make `target` equal to the file or folder `source`; what is the same is not written again."""
    if source.is_file():
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return
    names = {path.name for path in source.iterdir() if path.name != "__pycache__"}
    for path in target.iterdir() if target.is_dir() else ():
        if path.name not in names and path.name != "__pycache__":
            remove(path)
    for name in sorted(names):
        _mirror(source / name, target / name)


def environment(place: Path) -> dict[str, str]:
    """What the processes of a workplace see: its library and its HOME, and no network."""
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {
        "OMP_NUM_THREADS": "1",  # networks of a few thousand parameters gain nothing by more
        "PYTHONPATH": os.pathsep.join(paths),
        "HOME": str(place / "home"),
        "PATH": binaries,
        "HF_HUB_OFFLINE": "1",
    }
    return kept | own


def repro(place: Path, stages: list[str]) -> int:
    """`dvc repro` of these stages and what they need (all for none); a stage that fails stops only what needs it."""
    command = [sys.executable, "-m", "dvc", "repro", "--keep-going", *stages]
    return subprocess.run(command, cwd=place, env=environment(place), check=False).returncode


def _run(place: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=place, env=environment(place), check=True)
