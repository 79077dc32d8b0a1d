"""What dvc.yaml and params.yaml must say, computed from the notebooks, the library and conf/.

python -m chexgen_lib.workflow.dag params PROFILE ...   write params.yaml, the composition of a profile and overrides
python -m chexgen_lib.workflow.dag outputs              compare the files of a ci run with what dvc.yaml declares
"""

import argparse
import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from chexgen_lib.storage import replacing
from chexgen_lib.workflow import settings
from chexgen_lib.workflow.notebooks import ROOT, NotebookError, code_cells, load_yaml, names, path_of, read, section_of

# Folders of the repository, in which no run may write.
OWN = (".dvc", ".git", "benchmarks", "chexgen_lib", "conf", "docs", "findings", "notebooks", "tests")
# Settings that name a folder of the user's.
FOLDERS = ("curation.image_folder", "curation.data_root", "annotation_to_image.lung_masks")


def profiles() -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf/profile").glob("*.yaml"))


def compose(profile: str, output: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Compose a profile as `dvc exp run -S profile=...` does, write it to the file `output`, return it.

    Args:
        profile: a name in conf/profile.
        output: replaced only when all is well.
        overrides: "curation.image_folder=data/my images", one each, as `settings.for_hydra` takes them.

    Raises:
        NotebookError: for an unknown profile or setting, a value of another type than the profile's or that no training
            takes, or a `root` outside of the repository or in a folder of its own files.
    """
    from dvc.utils.hydra import compose_and_dump

    _check_profile(profile)
    overrides = list(overrides)
    if overrides:
        others = [plain(other) for other in profiles() if other != profile]
        overrides = settings.for_hydra(overrides, [plain(profile), *others])
    plugins = str(ROOT / ".dvc/hydra_plugins")
    with _named(profile, overrides), replacing(output) as partial:
        compose_and_dump(partial, str(ROOT / "conf"), None, "config", plugins, [f"profile={profile}", *overrides])
        composed = load_yaml(partial)
        _check_root(composed["root"])
        if overrides:  # the profiles as they are have been checked
            _check_values(composed)
    return load_yaml(output)


@functools.cache
def plain(profile: str) -> dict[str, Any]:
    """The values of a profile without overrides; not to be changed.

    Raises:
        NotebookError: for an unknown profile.
    """
    import hydra
    from omegaconf import OmegaConf

    _check_profile(profile)
    with _named(profile, []), hydra.initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return OmegaConf.to_container(hydra.compose("config", overrides=[f"profile={profile}"]), resolve=True)


def _check_root(root: str) -> None:
    """Raise for a folder of results in which DVC refuses to keep any, which it says when the first stage has run."""
    place = Path(os.path.normpath(ROOT / root))
    led = place.resolve() if (ROOT / ".git").exists() else place  # only with git does DVC mind a link
    if not (place.is_relative_to(ROOT) and led.is_relative_to(ROOT)):
        raise NotebookError(
            f"root={root}: {led} is outside of the repository, where DVC keeps no results: give a folder below it, as "
            "root=runs/mine; to use another disk, clone the repository there"
        )
    if place == ROOT or place.relative_to(ROOT).parts[0] in OWN:
        raise NotebookError(f"root={root}: holds the repository's own files: give another folder, as root=runs/mine")


def _check_values(composed: dict[str, Any]) -> None:
    """Raise for settings of a training that its stage would refuse, maybe days after the first has begun."""
    from chexgen_lib.training.config import TrainingConfig, TrainingError  # imports torch

    for section, values in composed.items():
        training = values.get("training") if isinstance(values, dict) else None
        if not isinstance(training, dict) or "steps" not in training:
            continue
        try:
            TrainingConfig(**training, seed=composed["seed"])
        except (TrainingError, TypeError) as error:
            raise NotebookError(f"{section}.training: {error}") from error


def _check_profile(profile: str) -> None:
    if profile not in profiles():
        raise NotebookError(f"no profile {profile!r} in conf/profile; there are: {', '.join(profiles())}")


@contextmanager
def _named(profile: str, overrides: list[str]) -> Iterator[None]:
    """Errors of Hydra with the profile and the overrides that brought them about."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        given = f" with {' '.join(overrides)}" if overrides else ""
        raise NotebookError(f"profile {profile!r}{given} cannot be composed: {error}") from error


def absent(params: dict[str, Any]) -> list[str]:
    """A line for each folder of the user's that a setting names and that is not there, or that lacks a source's
    images, before hours are spent."""
    named = {key: _value(key, params) for key in FOLDERS}
    lines = [
        f"{key} names {folder}, where there is no folder: a stage that reads it will stop; give yours, "
        f'SET="{key}=FOLDER"'
        for key, folder in named.items()
        if folder is not None and not (ROOT / folder).is_dir()
    ]
    images, root = named["curation.image_folder"], _value("cohort.image_root", params)
    if images is not None and images == root:  # `registry.with_images`: of no other source
        keys = ("cohort.stage1_sources", "cohort.stage2_sources")
        others = {key: [source for source in _value(key, params) or () if source != "nih"] for key in keys}
        lines += [
            f"{key} names {', '.join(sources)}, of which curation.image_folder has no image: for a folder of NIH's "
            "images give PROFILE=nih-mini"
            for key, sources in others.items()
            if sources
        ]
    return lines


def _value(key: str, params: dict[str, Any]) -> Any:
    """The value of `section.key`; None where the profile has none."""
    return functools.reduce(lambda level, name: (level or {}).get(name), key.split("."), params)


def stages(params: dict[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """Stages of dvc.yaml that run a notebook, with the values of `params` for ${key} and ${section.key}."""

    def value(match: re.Match) -> str:
        found = _value(match[1], params)
        return match[0] if found is None else str(found)

    loaded = YAML(typ="safe").load(re.sub(r"\$\{([\w.]+)\}", value, (root / "dvc.yaml").read_text()))["stages"]
    return {name: stage for name, stage in loaded.items() if "notebooks run" in stage.get("cmd", "")}


def with_needed(names: Iterable[str], stages: dict[str, Any]) -> list[str]:
    """The named stages and those whose outputs they depend on, in the order of the DAG; all of them for no names.

    Raises:
        NotebookError: if there is no such stage.
    """
    names = list(names) or list(stages)
    if unknown := [name for name in names if name not in stages]:
        raise NotebookError(f"no stage {unknown[0]!r} in dvc.yaml; there are: {', '.join(stages)}")
    maker = {path: name for name, stage in stages.items() for path in output_paths(stage)}
    found, todo = set(), names
    while todo:
        found.update(todo)
        needed = {maker[dep] for name in todo for dep in stages[name]["deps"] if dep in maker}
        todo = sorted(needed - found)
    return [name for name in stages if name in found]


def output_paths(stage: dict[str, Any]) -> list[str]:
    """Paths under outs, metrics and plots of a stage."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def check_outputs() -> None:
    """The files in runs/ci must be those that dvc.yaml declares for that profile; raises on a difference."""
    params = compose("ci", ROOT / "runs/ci/params.yaml")
    run = stages(params, ROOT)
    declared = [path for stage in run.values() for path in output_paths(stage)]
    folders = [Path(params["root"], section_of(name)) for name in run]
    folders.append(Path(params["figures_dir"]))
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    written = [path.relative_to(ROOT).as_posix() for path in files if not path.name.startswith(".")]
    missing = [path for path in declared if not (ROOT / path).exists()]
    extra = [path for path in written if not any(f"{path}/".startswith(f"{out}/") for out in declared)]
    # A notebook that is no stage writes figures too; its source names them.
    others = [cell.source for name in set(names()) - set(run) for cell in code_cells(read(path_of(name)))]
    extra = [path for path in extra if f'"{Path(path).stem}"' not in "".join(others)]
    if missing or extra:
        lines = [f"declared, not written: {path}" for path in missing]
        lines += [f"written, not declared: {path}" for path in extra]
        raise NotebookError("\n  ".join(["dvc.yaml and what the notebooks wrote differ", *lines]))
    print(f"{len(written)} files in {params['root']}, all of them declared in dvc.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chexgen_lib.workflow.dag", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("outputs")
    params = commands.add_parser("params")
    params.add_argument("profile", nargs="?", default="laptop")
    params.add_argument("overrides", nargs="*", metavar="section.key=value")
    params.add_argument("--set", default="", help="overrides in one text, as make's SET")
    arguments = parser.parse_args()
    match arguments.command:
        case "outputs":
            check_outputs()
        case "params":
            together = settings.split(arguments.set, plain(arguments.profile)) if arguments.set else []
            composed = compose(arguments.profile, ROOT / "params.yaml", [*arguments.overrides, *together])
            for line in absent(composed):
                print(f"warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except NotebookError as error:
        sys.exit(f"error: {error}")
