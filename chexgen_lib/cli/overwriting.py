"""What a command must not replace: the files that it reads, and pictures and tables that somebody else made."""

from collections.abc import Iterable
from pathlib import Path

from chexgen_lib.export.images import is_of_another
from chexgen_lib.sources.given import columns_of


def check_outputs(images: Iterable[Path], others: Iterable[Path], read: Iterable[Path]) -> None:
    """Raise ValueError if a command would replace a file that it reads, or an image that it did not make.

    Args:
        images, others: what it writes, samples and other files.
        read: what it reads.
    """
    images = list(images)
    given = {path.resolve() for path in read}
    for path in (*images, *others):
        if path.resolve() in given:
            raise ValueError(f"{path} is read here, and would be replaced: name another folder as --out")
    for path in images:
        if path.exists() and is_of_another(path):
            raise ValueError(f"{path} is no image of this command's: name another folder as --out, or move it away")


def check_apart(out: Path, folders: Iterable[Path]) -> None:
    """Raise ValueError if a command would write into a folder whose images it reads."""
    if within := [folder for folder in folders if out.resolve().is_relative_to(folder.resolve())]:
        raise ValueError(f"--out {out} is in {within[0]}, whose images are read: name a folder elsewhere")


def check_table(path: Path, columns: Iterable[str]) -> None:
    """Raise ValueError if a table is there that lacks some of the columns which those of the command have."""
    held = columns_of(path)
    if held and not set(columns) <= held:  # of no row it has no column either
        raise ValueError(f"{path} is no table of this command's: name another folder as --out, or move it away")
