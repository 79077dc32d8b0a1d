"""Fetching weights over the network, whole or not at all."""

import errno
import os
import shutil
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from chexgen_lib.models import weights_layout, weights_store
from chexgen_lib.models.weights_catalogue import HUB, OWN, REQUEST, SHIPPED, File, Weight, WeightsFileError
from chexgen_lib.storage import replacing

TIMEOUT = 60  # seconds without a byte


def fetch(weight: Weight, folder: Path | None = None) -> Path:
    """Download a weight to where its loader looks, or into `folder / NAME`, compare it, and record its digests.

    After an interruption, the files of the hub that had arrived are not fetched again.

    Returns:
        where it lies: a folder, or its file where it is one.

    Raises:
        WeightsFileError: if it cannot be reached, is not given to this user, does not fit on the disk, or arrives cut
            off or with another digest. No wrong and no half file is left under its name.
    """
    if weight.store in (SHIPPED, REQUEST, OWN):
        raise WeightsFileError(f"{weight.name}: {remedy(weight)}")
    where = weights_store.place(weight) if folder is None else folder / weight.name
    weights_store.room_for(weight.size or 0, where)
    try:
        return _from_hub(weight, where, folder is None) if weight.store == HUB else _from_address(weight, where)
    except (OSError, URLError) as error:
        raise WeightsFileError(f"{weight.name}: {_reason(weight, error)}") from error


def remedy(weight: Weight) -> str:
    """How to get a weight that is missing: a command, and before it what access needs."""
    if weight.store == SHIPPED:
        return (
            "it comes with the environment and the package: run `make env` or, for the autoencoder, `make autoencoder`"
        )
    if weight.store == OWN:
        made = "; `make autoencoder` makes one" if weight.layout == "autoencoder" else ""
        return f"it is not in the catalogue: put the folder there{made}, or `hf download` it if it is an id of the hub"
    if weight.store == REQUEST:
        return f"{weight.access}. Then: chexgen weights add {weight.name} {weight.files[0].path}"
    return f"{f'{weight.access}. Then: ' if weight.access else ''}chexgen weights fetch {weight.name}"


def _from_hub(weight: Weight, where: Path, in_cache: bool) -> Path:
    """The commit that is recorded, else that of the catalogue, else the newest; the loaders' `main` is set to it."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError as HubError

    revision = weights_store.record_of(weight).get("revision") or weight.revision
    target = {"cache_dir": constants.HF_HUB_CACHE} if in_cache else {"local_dir": where}
    patterns = [file.path for file in weight.files]
    try:
        folder = Path(snapshot_download(weight.source, revision=revision, allow_patterns=patterns, **target))
    except HubError as error:
        raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error
    shutil.rmtree(where / ".cache", ignore_errors=True)  # the hub's notes on a download into a folder
    paths = {path.relative_to(folder).as_posix(): path for pattern in patterns for path in folder.glob(pattern)}
    if lacking := [pattern for pattern in patterns if not any(folder.glob(pattern))]:
        raise WeightsFileError(f"{weight.name}: {', '.join(lacking)} did not arrive in {folder}: fetch it again")
    files = [_accepted(weight, name, path, folder) for name, path in paths.items()]
    if in_cache:
        weights_store.point(weight, folder.name)
    weights_layout.check(weight.layout, folder, weight.expects)
    weights_store.record(weight, folder.name if in_cache else revision, files)
    return folder


def _accepted(weight: Weight, name: str, path: Path, folder: Path) -> File:
    """A file that arrived from the hub; WeightsFileError if it is another than it should be, and it is removed then.

    The hub's cache calls a large file by the sha256 that the hub states.
    """
    (file,) = weights_store.digests({name: path})
    content = path.resolve()
    try:
        weights_store.compare(weight, [file], folder)
        if len(content.name) == 64 and content.name != file.sha256:
            raise WeightsFileError(
                f"{name} of {weight.name} arrived damaged, its sha256 is not the hub's: fetch it again"
            )
    except WeightsFileError:
        content.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return file


def _from_address(weight: Weight, where: Path) -> Path:
    file = weight.files[0]
    path = where / file.path
    with replacing(path) as partial:
        with urlopen(weight.source, timeout=TIMEOUT) as answer, open(partial, "wb") as out:
            shutil.copyfileobj(answer, out, 1 << 20)
            stated = answer.headers.get("Content-Length")
        if stated is not None and int(stated) != partial.stat().st_size:
            raise WeightsFileError(
                f"{weight.name}: the download was cut off at {partial.stat().st_size:,} of {int(stated):,} bytes: "
                "fetch it again"
            )
        arrived = weights_store.digests({file.path: partial})
        weights_store.compare(weight, arrived, path)
        weights_layout.check_file(partial, pickled=True)
    weights_store.record(weight, None, arrived)
    return path


def _reason(weight: Weight, error: Exception) -> str:
    """What an error of the network, the hub or the disk means for the user."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError | RepositoryNotFoundError):
        return f"the hub does not give it to you: {weight.access or 'log in to the hub with `hf auth login`'}"
    if isinstance(error, HTTPError):
        return f"{weight.source} answers {error.code} {error.reason}: it has moved, see docs/weights.md"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "the disk is full: nothing was left under its name; make room and fetch it again"
    carried = f"chexgen weights fetch {weight.name} --folder FOLDER"
    elsewhere = (
        f"on a machine with a connection run `{carried}`, bring FOLDER and run `chexgen weights add {weight.name}"
    )
    if isinstance(error, LocalEntryNotFoundError | URLError | ConnectionError | TimeoutError):
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        return f"cannot reach {weight.source}{offline}: {elsewhere} FOLDER/{weight.name}`"
    return f"{' '.join(str(error).split())[:200]}: fetch it again"
