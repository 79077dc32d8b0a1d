"""A dataset's files, wherever its publisher or a mirror put them, and their text, however it is packed and encoded."""

import bz2
import codecs
import filecmp
import gzip
import io
import lzma
import os
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

import polars as pl

from chexgen_lib.pixels import kind_of
from chexgen_lib.records import RecordError
from chexgen_lib.storage import Table, names_below

_IMAGE = re.compile(r"(?:\.(?:png|jpe?g|dcm|dicom|dic|tiff?))+$", re.IGNORECASE)  # several: a.dcm.png is made of a.dcm
_PACKED = r"(?:\.gz|\.zip|\.bz2|\.xz)?"
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found", "#recycle", "#snapshot"}
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.gz|7z|rar)$", re.IGNORECASE)
_SMALL = 10_000  # bytes; a radiograph has more, most of what lies in its place less
_LOOKED_AT = 100  # of the larger files, evenly chosen; all, once one of them is no image
_FEW = 64  # files of one name among which the right one is looked for one by one
# First bytes of what is no table -> what it is, and what to do.
_STRANGE = {
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"(\xb5/\xfd": "packed with Zstandard; unpack it",
    b"PAR1": "a parquet file; give the publisher's table",
    b"\xd0\xcf\x11\xe0": "an Excel file; save its table as CSV",
    b"\x89PNG": "an image; give the publisher's table",
    b"%PDF": "a PDF; give the publisher's table",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; run git lfs pull",
    b"<!doctype html": "a web page; log in at the publisher's and fetch the file again",
    b"<html": "a web page; log in at the publisher's and fetch the file again",
}
_BOMS = {  # the longer first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Tree:
    """The files below a dataset's folder, links followed, without hidden and system files; or a single file.

    Attributes:
        folder: the folder, or the file.
        names: paths relative to the folder, with slashes, sorted; none for a single file.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.exists():
            raise RecordError(
                f"{folder}: no such file or folder; give the dataset's folder as its publisher lays it out"
            )
        self.names = sorted(_walk(self.folder)) if self.folder.is_dir() else []
        self._known_folders: dict[int, set[tuple[str, ...]]] = {}
        if foreign := next((name for name in self.names if re.search("[\ud800-\udfff]", name)), None):
            shown = os.fsencode(foreign).decode(errors="backslashreplace")
            raise RecordError(f"{self.folder / shown}: a name that is not UTF-8; rename it, for example with convmv")

    @classmethod
    def of(cls, place: "str | Path | Tree") -> "Tree":
        """The tree itself, or that of a folder or file."""
        return place if isinstance(place, Tree) else cls(place)

    def matches(self, pattern: str) -> list[str]:
        """The names that end as `pattern` (of `Path.glob`) says: in any depth and case; of tables also the packed."""
        return list(filter(_expression(pattern).fullmatch, self.names))

    @property
    def archives(self) -> list[str]:
        """The names of packed folders."""
        return [name for name in self.names if _ARCHIVE.search(name)]

    @cached_property  # asked for each part that is missing
    def lost_links(self) -> str:
        """What to say of links that lead to no file, as in a hub's snapshot that was copied alone; "" without any."""
        found = []
        for place, folders, files in os.walk(self.folder):
            paths = (os.path.join(place, name) for name in sorted((*folders, *files)) if not _is_hidden(name))
            found += [path for path in paths if os.path.islink(path) and not os.path.exists(path)]
        return f"{len(found):,} links lead to no file, first {found[0]}: copy again (cp -rL)" if found else ""

    @property
    def images(self) -> list[str]:
        """The names of files of an image's type."""
        return [name for name in self.names if _IMAGE.search(name)]

    def hollow(self, names: Iterable[str]) -> dict[str, str]:
        """Files named as images that are none: empty, a pointer, a web page; name -> what it is and what to do."""
        sizes = {name: (self.folder / name).stat().st_size for name in names}
        large = [name for name, size in sizes.items() if size >= _SMALL]
        found = self._kinds(name for name, size in sizes.items() if size < _SMALL)
        sample = self._kinds(large[:: max(len(large) // _LOOKED_AT, 1)])
        found |= self._kinds(large) if sample else {}
        return found | {name: "empty; fetch it again" for name, size in sizes.items() if not size}

    def _kinds(self, names: Iterable[str]) -> dict[str, str]:
        """Files that are no images by their first bytes; name -> what they are and what to do."""
        kinds = {}
        for name in names:
            with open(self.folder / name, "rb") as file:
                kinds[name] = kind_of(file.read(132))
        return {name: kind for name, kind in kinds.items() if kind}

    def find(self, images: pl.Series) -> pl.DataFrame:
        """The files of images that a table names: `image`, `file` (null where there is none), `rival`.

        A file is an image's if the ends of their paths are the same, as far as images need it to be told apart, in any
        case and of any type; or if their names are, and no other image has that name, or all parts of the image's path
        are in the file's. Of several the longest common end decides, then the type; where neither does and the files
        differ, `file` is the first and `rival` the second: which is meant is not known. Where the folder that an
        image's path names is there, with images, no file outside it is the image's.
        """
        wanted = [_parts(image) for image in images.drop_nulls().unique(maintain_order=True)]
        depth, deepest = 1, max((len(parts) for _, parts in wanted), default=1)
        while depth < deepest and len({parts[-depth:] for _, parts in wanted}) < len(wanted):
            depth += 1
        there, near, by_name = set(self.names), defaultdict(list), defaultdict(list)
        placed = {image for image, parts in wanted if len(parts) > 1 and image in there}  # a bare name tells no place
        if len(placed) < len(wanted):
            for name, parts in map(_parts, self.names):
                near[parts[-depth:]].append((name, parts))
                by_name[parts[-1:]].append((name, parts))
        rows, of_name = [], Counter(parts[-1:] for _, parts in wanted)
        for image, parts in wanted:
            files = [image] if image in placed else self._nearest(image, parts, near[parts[-depth:]])
            others = by_name[parts[-1:]] if not files else []
            if len(others) <= _FEW:
                alone = of_name[parts[-1:]] == 1
                others = [(name, found) for name, found in others if alone or set(parts) <= set(found)]
                files = files or self._nearest(image, parts, others)
            rows.append((image, *files, None, None)[:3])
        return pl.DataFrame(rows, schema=dict.fromkeys(("image", "file", "rival"), pl.String), orient="row")

    def _nearest(self, image: str, parts: tuple[str, ...], files: list[tuple[str, tuple[str, ...]]]) -> list[str]:
        """Of the files whose path has the longest end in common with an image's, those that differ, at most two."""
        folder = parts[:-1]
        inside = [(name, found) for name, found in files if folder in _runs(found[:-1], len(folder))]
        if inside or files and folder in self._folders(len(folder)):
            files = inside
        if len(files) < 2:
            return [name for name, _ in files]
        suffix = PurePosixPath(image).suffix.lower()
        rank = {name: (_common(parts, found), name.lower().endswith(suffix)) for name, found in files}
        first, *others = sorted(name for name in rank if rank[name] == max(rank.values()))
        other = next((name for name in others if not self._same(first, name)), None)
        return [first] if other is None else [first, other]

    def _folders(self, length: int) -> set[tuple[str, ...]]:
        """Paths of `length` folders, one in the other, anywhere on the way to an image of the tree."""
        if length not in self._known_folders:
            paths = {_parts(name)[1][:-1] for name in self.images}
            self._known_folders[length] = {run for path in paths for run in _runs(path, length)}
        return self._known_folders[length]

    def _same(self, one: str, other: str) -> bool:
        return filecmp.cmp(self.folder / one, self.folder / other, shallow=False)


def stamps(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Size and time of each file of a folder, other ones when a file is replaced; empty where there is no file.

    Contents are not read: there may be millions.
    """
    return [_stamp(os.path.join(folder, name)) for name in names]


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def with_stamps(records: Table, folder: str | Path | None) -> Table:
    """Records with the `stamps` of their images in a column `file`, for the key of what is kept of them.

    folder: that the records' `image` is relative to; None, of an embedded cohort: as they are.
    """
    if folder is None:
        return records
    made = pl.col("image").map_batches(lambda names: pl.Series(stamps(folder, names)), pl.String, is_elementwise=True)
    return records.with_columns(file=made)


def locate(place: str | Path | Tree, *patterns: str) -> Path:
    """The one file that a dataset's folder holds under one of `patterns` (see `Tree.matches`), or the file itself.

    Raises:
        RecordError: if there is none, or if there are two that differ; it says what was looked for, and where.
    """
    tree = Tree.of(place)
    found = located(tree, *patterns)
    if found is None:
        raise _missing(tree, *patterns)
    return found


def every(place: str | Path | Tree, pattern: str) -> list[Path]:
    """All files that a dataset's folder holds under a pattern (see `Tree.matches`), sorted; RecordError if none."""
    tree = Tree.of(place)
    if found := tree.matches(pattern):
        return [tree.folder / name for name in found]
    raise _missing(tree, pattern)


def _missing(tree: Tree, *patterns: str) -> RecordError:
    names = " or ".join(pattern.removeprefix("**/") for pattern in patterns)
    unpack = [f"unpack {name}" for name in tree.archives[:1]]
    remedies = [tree.lost_links, *unpack, "give the dataset's folder as its publisher lays it out"]
    return RecordError(f"{tree.folder}: holds no {names}; {', or '.join(filter(None, remedies))}")


def located(place: str | Path | Tree, *patterns: str) -> Path | None:
    """As `locate`, but None where there is none."""
    tree = Tree.of(place)
    if tree.folder.is_file():
        return tree.folder
    found = list(dict.fromkeys(name for pattern in patterns for name in tree.matches(pattern)))
    for other in found[1:]:
        one, two = tree.folder / found[0], tree.folder / other
        if not one.samefile(two) and unpacked(one) != unpacked(two):
            raise RecordError(
                f"{tree.folder}: holds {found[0]} and {other}, which differ; which is meant is not known: move one away"
            )
    return tree.folder / found[0] if found else None


def read_text(path: Path) -> bytes:
    """The text of a file as UTF-8 without a byte order mark; it may be packed, and encoded as `as_utf8` reads it.

    Raises:
        RecordError: if there is no such file, or it is damaged, empty or no text.
    """
    raw = unpacked(path)
    if not raw.strip():
        raise RecordError(f"{path}: the file is empty; fetch it again")
    try:
        text = as_utf8(raw)
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: damaged or unreadable ({error}); fetch it again") from error
    if b"\0" in text:
        raise RecordError(f"{path}: holds bytes of value 0, so it is damaged or no text; fetch it again")
    return text


def as_utf8(raw: bytes) -> bytes:
    """Text as UTF-8 without a byte order mark; without a mark it is UTF-8, UTF-16 (every other byte is 0), or else as
    Windows writes it, and Latin-1 where Windows has no character."""
    for mark, encoding in _BOMS.items():
        if raw.startswith(mark):
            text = raw.removeprefix(mark)
            return text.decode(encoding).encode() if encoding != "utf-8" else as_utf8(text)
    zeros = [raw[start:1000:2].count(0) for start in (0, 1)]
    wide = len(raw) % 2 == 0 and 3 * max(zeros) > len(raw[:1000]) and not min(zeros)
    for encoding in (("utf-16-be", "utf-16-le")[zeros[1] > 0],) * wide + ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding).encode()
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1").encode()


def unpacked(path: Path) -> bytes:
    """The bytes of a file, taken out of gzip, bzip2, xz or a zip archive that holds nothing else.

    Raises:
        RecordError: if there is no such file, it is damaged, or another kind of file than a table or a text.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(b"PK\x03\x04"):
            raw = _only_member(path, raw)
        for start, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
            raw = module.decompress(raw) if raw.startswith(start) else raw
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file; give the path of the dataset's table") from error
    except (OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: damaged or unreadable ({error}); fetch it again") from error
    start = raw[:64].lstrip().lower()
    kind = next((kind for mark, kind in _STRANGE.items() if start.startswith(mark.lower())), None)
    kind = "a tar archive; unpack it" if raw[257:262] == b"ustar" else kind
    if kind:
        raise RecordError(f"{path}: this is {kind}")
    return raw


def _only_member(path: Path, raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not _is_hidden(name)]
        own = [name for name in names if PurePosixPath(name).name.lower() == path.stem.lower()]
        if "[Content_Types].xml" in names:
            raise RecordError(f"{path}: this is an Excel file; save its table as CSV")
        if len(names) != 1 and len(own) != 1:
            raise RecordError(f"{path}: an archive of {len(names)} files, not one table; unpack it")
        return archive.read(own[0] if len(own) == 1 else names[0])


def _walk(top: Path) -> list[str]:
    """Relative paths of all files, as `names_below`."""
    try:
        return names_below(top, _is_hidden)
    except OSError as error:
        raise RecordError(f"{error.filename or top}: cannot be read ({error.strerror}); check its rights") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "~$")) or part.lower() in _SYSTEM for part in name.split("/"))


def _expression(pattern: str) -> re.Pattern:
    text = pattern.removeprefix("**/")
    text = text.removesuffix("*") if re.search(r"\.\w+\*$", text) else text
    pieces = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", text)
    meaning = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    body = "".join(meaning.get(p, p if p.startswith("[") else re.escape(p)) for p in pieces if p)
    return re.compile(rf"(?:.*/)?{body}{_PACKED}", re.IGNORECASE)


def _parts(name: str) -> tuple[str, tuple[str, ...]]:
    """A path, and its parts in lower case, without the ending of an image."""
    return name, tuple(_IMAGE.sub("", name.lower().replace("\\", "/")).strip("/").split("/"))


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts the ends of two paths have in common."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _runs(path: tuple[str, ...], length: int) -> set[tuple[str, ...]]:
    """All `length` parts of a path that follow each other."""
    return {path[i : i + length] for i in range(len(path) - length + 1)}
