"""Where the weights of others lie, whether they are whole, and how a folder that somebody brings gets there.

No loader has a second place to look: weights are put where the libraries that read them keep their own downloads.
What was fetched or added is recorded in `conf/weights/NAME.json`, so that another machine gets the same bytes or an
error.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from chexgen_lib.models import weights_layout
from chexgen_lib.models.weights_catalogue import OWN, REQUEST, SHIPPED, TORCH, XRV, File, Weight, WeightsFileError
from chexgen_lib.storage import replacing, write_json

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "conf" / "weights"
REQUESTED = ROOT / "data" / "weights"
ABSENT = "not there"
READ = (".json", ".txt", ".model", ".safetensors", ".bin")  # files of a model's folder that a loader may read


def place(weight: Weight) -> Path:
    """The folder that its loader reads, of a weight of the hub the one below which its commits lie."""
    if weight.store == XRV:
        return Path.home() / ".torchxrayvision" / "models_data"  # torchxrayvision.utils.get_cache_dir, slow to import
    if weight.store == TORCH:  # torch.hub.get_dir, the same
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
        return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"
    if weight.store == REQUEST:
        return REQUESTED
    if weight.store == SHIPPED:
        package, _, below = weight.source.partition(".")
        spec = find_spec(package)
        return Path(spec.submodule_search_locations[0], *below.split(".")) if spec else Path(package)
    if weight.store == OWN and (ROOT / Path(weight.source).expanduser()).is_dir():
        return ROOT / Path(weight.source).expanduser()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{weight.source.strip('/').replace('/', '--')}"


def find(weight: Weight) -> Path | None:
    """The folder of a weight, or its file where it is one; None if it is not there."""
    where = place(weight)
    if weight.layout in weights_layout.SINGLE:
        where = where / weight.files[0].path
    elif (where / "refs" / "main").is_file():  # what the loaders ask the hub's cache for
        where = where / "snapshots" / (where / "refs" / "main").read_text().strip()
    elif where.name.startswith("models--"):
        return None
    return where if where.exists() else None


def fault(weight: Weight, hashes: bool = False) -> str | None:
    """What keeps a weight from being used, `ABSENT` or a sentence; None where nothing does.

    Args:
        hashes: read every byte and compare the digests too; without it names, sizes and headers must do.
    """
    path = find(weight)
    if path is None:
        return ABSENT
    try:
        weights_layout.check(weight.layout, path, weight.expects)
        paths = {name: file_of(weight, path, name) for name in known(weight)}
        present = {name: file for name, file in paths.items() if file.is_file()}
        compare(weight, digests(present) if hashes else _sizes(present), path)
    except WeightsFileError as error:
        return str(error)
    return None


def file_of(weight: Weight, path: Path, name: str) -> Path:
    """The file `name` of a weight that lies at `path`."""
    return path if weight.layout in weights_layout.SINGLE else path / name


def known(weight: Weight) -> dict[str, File]:
    """Files of a weight of which the catalogue or the record of an earlier fetch states size or digest, by path."""
    stated = {file.path: file for file in weight.files if file.size or file.sha256}
    for entry in record_of(weight).get("files", ()):
        file, ours = File(**entry), stated.get(entry["path"], File(entry["path"]))
        sha256 = max(ours.sha256 or "", file.sha256, key=len)  # the catalogue's, unless it has only the first digits
        stated[file.path] = File(file.path, ours.size or file.size, sha256)
    return stated


def record_of(weight: Weight) -> dict:
    """What was recorded when the weight was first fetched or added; empty if it never was."""
    path = PINS / f"{weight.name}.json"
    if weight.store in (OWN, SHIPPED) or not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise WeightsFileError(f"{path} is damaged: restore it from git, or remove it to record anew") from error


def record(weight: Weight, revision: str | None, files: Iterable[File]) -> None:
    """Write `conf/weights/NAME.json`; it holds no path of this machine."""
    entries = [asdict(file) for file in sorted(files, key=lambda file: file.path)]
    write_json({"source": weight.source, "revision": revision, "files": entries}, PINS / f"{weight.name}.json")


def digests(paths: Mapping[str, Path]) -> list[File]:
    """Size and sha256 of files, by their paths below the weight's folder."""
    found = []
    for name, path in paths.items():
        with open(path, "rb") as stream:
            found.append(File(name, path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()))
    return found


def _sizes(paths: Mapping[str, Path]) -> list[File]:
    return [File(name, path.stat().st_size) for name, path in paths.items()]


def compare(weight: Weight, files: Iterable[File], where: Path) -> None:
    """Raise WeightsFileError for the first of `files`, in `where`, that is not as the catalogue or the record says.

    A file without a digest is compared by its size.
    """
    stated = known(weight)
    for file in files:
        wanted = stated.get(file.path, file)
        if wanted.size not in (None, file.size):
            has, expected = f"{file.size:,} bytes", f"{wanted.size:,}"
        elif wanted.sha256 and file.sha256 and not file.sha256.startswith(wanted.sha256):
            has, expected = f"the sha256 {file.sha256[:12]}...", f"{wanted.sha256[:12]}..."
        else:
            continue
        recorded = file.path in {entry["path"] for entry in record_of(weight).get("files", ())}
        accept = f" (to accept another version, remove conf/weights/{weight.name}.json)" if recorded else ""
        raise WeightsFileError(
            f"{file_of(weight, where, file.path)} has {has}, not {expected}: it is cut off, damaged or another "
            f"version: get it again{accept}"
        )


def add(weight: Weight, given: Path) -> Path:
    """Take a weight from a folder or file into the place where its loader looks, linked where it can be, else copied.

    Args:
        weight: of the catalogue, not shipped.
        given: a folder in the layout of the weight; of one that is a single file also that file, under any name.

    Returns:
        where it now lies.

    Raises:
        WeightsFileError: if there is no whole weight of this layout, size and digest. Nothing is changed then.
    """
    given = given.expanduser()
    if weight.store == SHIPPED:
        raise WeightsFileError(f"{weight.name} comes with the environment: run `make env`")
    if not given.exists():
        raise WeightsFileError(f"{given} does not exist: give the folder or file that holds {weight.name}")
    single = weight.layout in weights_layout.SINGLE
    if single and given.is_dir():
        given = given / weight.files[0].path
    if not single and not given.is_dir():
        raise WeightsFileError(f"{given} is a file: unpack it, and give the folder that holds {weight.name}")
    weights_layout.check(weight.layout, given, weight.expects)
    paths = {weight.files[0].path: given} if single else _read_files(weight, given)
    files = digests(paths)
    compare(weight, files, given)
    revision = None if single else _revision(weight, files)
    _link_or_copy(paths, place(weight) if single else place(weight) / "snapshots" / revision, single)
    if not single:
        point(weight, revision)
    record(weight, revision, files)
    return find(weight)


def point(weight: Weight, revision: str) -> None:
    """Let the loaders' `main` of a weight of the hub be this commit."""
    with replacing(place(weight) / "refs" / "main") as partial:
        partial.write_text(revision)


def _read_files(weight: Weight, folder: Path) -> dict[str, Path]:
    """The files of a model's folder that a loader reads: no pickles where there are safetensors, no other parts."""
    below = weights_layout.LAYOUTS[weight.layout].below if weight.layout in weights_layout.LAYOUTS else ""
    start = folder / below if below and not (folder / "config.json").is_file() else folder
    patterns = [file.path for file in weight.files] if weight.layout == "pipeline" else ["*"]
    found = [path for pattern in patterns for path in start.glob(pattern)]
    files = [path for path in found if path.is_file() and path.suffix in READ and not path.name.startswith(".")]
    tensors = {path.parent for path in files if path.suffix == weights_layout.TENSORS}
    files = [path for path in files if not (path.suffix == ".bin" and path.parent in tensors)]
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


def _revision(weight: Weight, files: Iterable[File]) -> str:
    """The commit that these files are of, as far as can be told; else a name made of their digests."""
    names = {file.path for file in files}
    if weight.revision and all(file.path in names for file in weight.files):
        return weight.revision
    return hashlib.sha1(json.dumps(sorted((f.path, f.sha256) for f in files)).encode()).hexdigest()


def _link_or_copy(paths: Mapping[str, Path], target: Path, single: bool) -> None:
    """Make `target`, a folder of these files (or, of a single one, the file in it); all of it or nothing."""
    room_for(sum(path.stat().st_size for path in paths.values() if not _same_disk(path, target)), target)
    for path in [target / name for name in paths] if single else [target]:
        with replacing(path) as partial:
            for name, source in paths.items():
                destination = partial if single else partial / name
                destination.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source.resolve(), destination)
                except OSError:  # another disk, or one without links
                    shutil.copyfile(source, destination)


def room_for(size: int, folder: Path) -> None:
    """Raise WeightsFileError if the disk of `folder`, which need not exist yet, has no room for `size` bytes in it."""
    size -= sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise WeightsFileError(f"{folder}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free on this disk")


def _same_disk(path: Path, folder: Path) -> bool:
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    return path.stat().st_dev == existing.stat().st_dev
