"""All datasets, whole but small, and layouts in which users have them: some unusual and sound, some without use."""

import bz2
import csv
import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from chexgen_lib.sources import registry
from tests.sources.datasets import DATASETS
from tests.sources.layouts import dicom, picture

SMALLEST = 200  # bytes: what is smaller holds a header at most
IMAGES = (".png", ".jpg", ".dcm", ".dicom")


def whole(source: str, root: Path) -> Path:
    """The dataset's folder below a data root, with an image for each of its records."""
    folder = root / source
    folder.mkdir(parents=True)
    DATASETS[source].lay_out(folder)
    for image in registry.load(source, folder)[0]["image"]:
        path = folder / image
        if not path.is_file() or path.stat().st_size < SMALLEST:
            picture(path) if path.suffix in (".png", ".jpg") else dicom(path, rows=8, columns=8)
    return folder


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGES or path.parent.name == "dataset"


def files(folder: Path, images: bool) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path) == images)


def move(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)


def one_folder_more(folder: Path) -> None:
    for path in files(folder, True) + files(folder, False):
        move(path, folder / "release 1.0/files" / path.relative_to(folder))


def batches(folder: Path) -> None:
    for number, path in enumerate(files(folder, True)):
        move(path, folder / f"batch {number % 2 + 1}" / path.relative_to(folder))


def upper_case(folder: Path) -> None:
    for path in files(folder, True):
        path.rename(path.with_name(path.stem + path.suffix.upper()))


def packed(folder: Path) -> None:
    for number, path in enumerate(files(folder, False)):
        if path.suffix in (".csv", ".tsv", ".json"):
            pack, ending = ((gzip, ".gz"), (bz2, ".bz2"))[number % 2]
            path.with_name(path.name + ending).write_bytes(pack.compress(path.read_bytes()))
            path.unlink()


def utf_16(folder: Path) -> None:
    for path in files(folder, False):
        if path.suffix in (".csv", ".tsv", ".json"):
            path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))


def semicolons(folder: Path) -> None:
    for path in files(folder, False):
        if path.suffix == ".csv":
            text = io.StringIO(path.read_bytes().decode("latin-1"), newline="")
            with open(path, "w", encoding="latin-1", newline="") as file:
                csv.writer(file, delimiter=";").writerows(csv.reader(text, skipinitialspace=True))


def lock_files(folder: Path) -> None:
    for path in files(folder, False):
        path.with_name(f"~${path.name}").write_bytes(b"\x05who has it open")


def wget_mirror(folder: Path) -> None:
    for path in files(folder, True) + files(folder, False):
        move(path, folder / "physionet.org/files/data/1.0.0" / path.relative_to(folder))
    for place in [path for path in folder.rglob("*") if path.is_dir()]:
        (place / "index.html").write_text("<html>Index of files</html>")
    (folder / "physionet.org/SHA256SUMS.txt").write_text("0 train.csv\n")


def made_into_png(folder: Path) -> None:
    for path in files(folder, True):
        path.rename(path.with_name(f"{path.name}.png"))


def archives_kept(folder: Path) -> None:
    with tarfile.open(folder / "images_001.tar.gz", "w:gz") as archive:
        for path in files(folder, True):
            archive.add(path, path.relative_to(folder))
    for path in files(folder, False):
        path.with_name(f"{path.name}.part").write_bytes(b"1")


def links(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    shutil.move(folder, elsewhere)
    folder.mkdir()
    for path in elsewhere.iterdir():
        (folder / path.name).symlink_to(path)


def two_releases(folder: Path) -> None:
    path = max(files(folder, False), key=lambda path: (path.suffix != ".txt", path.stat().st_size))
    other = folder / "older" / path.relative_to(folder)
    other.parent.mkdir(parents=True)
    change = (b"'pneumonia'", b"'normal'") if path.suffix == ".tsv" else (b"1", b"2")  # of the same records
    other.write_bytes(path.read_bytes().replace(*change, 1) + b"\n")


def two_sizes(folder: Path) -> None:
    for path in files(folder, True):
        copy = folder / "small" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        picture(copy, 4) if path.suffix in (".png", ".jpg") else dicom(copy, rows=4, columns=4)
        move(path, folder / "large" / path.relative_to(folder))


def names_in_latin_1(folder: Path) -> None:
    place = os.fsencode(folder) + b"/im\xe1genes/"
    os.mkdir(place)
    for path in files(folder, True):
        os.rename(path, place + os.fsencode(path.name))


def without_images(folder: Path) -> None:
    for path in files(folder, True):
        path.unlink()


def images_of_others(folder: Path) -> None:
    for number, path in enumerate(files(folder, True)):
        path.rename(path.with_name(f"other_{number}{path.suffix}"))


def hidden_copies(folder: Path) -> None:
    for path in files(folder, True):
        move(path, folder / "__MACOSX" / path.relative_to(folder).with_name(f"._{path.name}"))


def broken_links(folder: Path) -> None:
    for path in files(folder, True):
        path.unlink()
        path.symlink_to(folder / "gone" / path.name)


def empty_images(folder: Path) -> None:
    for path in files(folder, True):
        path.write_bytes(b"")


def pointers(folder: Path) -> None:
    for path in files(folder, True):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def login_pages(folder: Path) -> None:
    for path in files(folder, True):
        path.write_bytes(b"<!DOCTYPE html><html>" + b" " * 20_000)


def packed_images(folder: Path) -> None:
    with tarfile.open(folder / "images_001.tar.gz", "w:gz") as archive:
        for path in files(folder, True):
            archive.add(path, path.relative_to(folder))
            path.unlink()


def headers_only(folder: Path) -> None:
    for path in files(folder, False):
        raw = path.read_bytes()
        empty = {".json": b"[]", ".xml": b"<eCitation/>", ".txt": b"\n"}.get(path.suffix, raw.partition(b"\n")[0])
        path.write_bytes(empty)


def as_published(folder: Path) -> None:
    pass


Layout = Callable[[Path], None]
SOUND: tuple[Layout, ...] = (
    as_published,
    one_folder_more,
    batches,
    upper_case,
    packed,
    utf_16,
    links,
    semicolons,
    lock_files,
    wget_mirror,
    made_into_png,
    archives_kept,
)
NO_IMAGES = (
    without_images,
    images_of_others,
    hidden_copies,
    broken_links,
    empty_images,
    pointers,
    login_pages,
    packed_images,
)
USELESS: tuple[Layout, ...] = (*NO_IMAGES, headers_only)
UNCLEAR: tuple[Layout, ...] = (two_releases, two_sizes, names_in_latin_1)
