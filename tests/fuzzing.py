"""Damaged and strange inputs for every reader of files that others wrote: each is read, or refused with a sentence.

`READERS` names a strategy of folders (file name -> bytes), what reads such a folder, and the errors by which it may
refuse. `attempt` tries one input.
"""

import io
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from hypothesis import reject
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from chexgen_lib.descriptions import report_parser
from chexgen_lib.images import ImageError, read_image
from chexgen_lib.language_model.answers import read_answer
from chexgen_lib.masks import read_mask
from chexgen_lib.models.loading import WeightsError, from_pretrained
from chexgen_lib.models.released import CheckpointError, load_released
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.records import RecordError
from chexgen_lib.sampling.conditions import CLASSES, ConditionError, read_boxes
from chexgen_lib.sampling.prompts import COLUMNS, ENCODED, PromptError, read_prompts
from chexgen_lib.sources import registry
from tests.builders import deep_png
from tests.sources.datasets import DATASETS

Files = dict[str, bytes]
RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        inputs: strategy of the files of a folder.
        read: called with the folder.
        refuses: errors that say what is wrong with the files.
        share: of the inputs of a run, in percent.
    """

    inputs: st.SearchStrategy[Files]
    read: Callable[[Path], Any]
    refuses: tuple[type[Exception], ...]
    share: int


def attempt(reader: Reader, files: Files) -> None:
    """Read the files, or have them refused with a message of one line or more; any other error is a fault."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, raw in files.items():
            path = Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        try:
            reader.read(Path(place))
        except reader.refuses as error:
            assert str(error).strip(), "refused without a reason"


# Damage to the bytes of a file


def drop_column(raw: bytes, number: int) -> bytes:
    """Every line without one of its fields."""
    lines = [line.split(b",") for line in raw.split(b"\n")]
    return b"\n".join(b",".join(cell for i, cell in enumerate(line) if i != number % len(lines[0])) for line in lines)


def flip(raw: bytes, places: list[tuple[int, int]]) -> bytes:
    """Other bytes at some places."""
    changed = bytearray(raw)
    for place, value in places:
        changed[place % len(raw)] = value
    return bytes(changed)


def flips(values: st.SearchStrategy) -> st.SearchStrategy:
    places = st.lists(st.tuples(st.integers(0, 10_000), values), min_size=1, max_size=6)
    return places.map(lambda places: lambda raw: flip(raw, places))


BYTES = st.sampled_from([b",", b"\t", b";", b"1", b"0", b"\n", b'"'])
DAMAGE = st.one_of(
    st.integers(0, 5000).map(lambda n: lambda raw: raw[: n % (len(raw) + 1)]),
    flips(st.integers(0, 255)),
    flips(st.sampled_from(b'0123456789-.,;:" \n{}[]')),
    st.integers(0, 40).map(lambda n: lambda raw: drop_column(raw, n)),
    st.builds(lambda n, text: lambda raw: raw[:n] + text + raw[n:], st.integers(0, 2000), st.binary(max_size=8)),
    st.builds(lambda a, b: lambda raw: raw.replace(a, b), BYTES, BYTES),
    st.binary(max_size=200).map(lambda data: lambda raw: data),
    st.sampled_from(
        [
            lambda raw: b"\xef\xbb\xbf" + raw,
            lambda raw: raw.replace(b"\n", b"\r\n"),
            lambda raw: raw.replace(b"a", b"\xe9"),
            lambda raw: raw + raw,
            lambda raw: raw + b"\n" + raw.rpartition(b"\n")[2],
            lambda raw: raw.decode("utf-8", "replace").encode("latin-1", "replace"),
            lambda raw: raw.decode("utf-8", "replace").encode("utf-16"),
        ]
    ),
)


@st.composite
def damaged(draw: st.DrawFn, sound: st.SearchStrategy[Files]) -> Files:
    """Sound files with one to three damages."""
    files = dict(draw(sound))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(files)))
        files[name] = draw(DAMAGE)(files[name]) if files[name] else files[name]
    return files


# Sound files, and values that a writer could have put in their place


def picture(values: np.ndarray, kind: str) -> bytes:
    buffer, image = io.BytesIO(), Image.fromarray(values)
    if kind == "palette":
        image, kind = image.convert("L").quantize(4), "png"
    image.save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind))
    return buffer.getvalue()


@cache
def pictures() -> dict[str, bytes]:
    eight = (RAMP >> 8).astype(np.uint8)
    colours = np.stack([eight, eight[::-1], eight.T, np.full_like(eight, 255)], axis=-1)
    found = {f"grey.{kind}": picture(eight, kind) for kind in ("png", "jpg", "tif")}
    found |= {"colours.png": deep_png(colours.astype(np.uint16) * 257), "deep.png": picture(RAMP, "png")}
    found |= {"palette.png": picture(eight, "palette")}
    return found | {"rgba.png": picture(colours, "png"), "rgb.jpg": picture(colours[..., :3], "jpg")}


def one_picture() -> st.SearchStrategy[Files]:
    return st.sampled_from(sorted(pictures())).map(lambda name: {name: pictures()[name]})


@st.composite
def picture_arrays(draw: st.DrawFn) -> Files:
    """A PNG of any few values in any mode, as masks come."""
    values = draw(st.lists(st.integers(0, 255), min_size=1, max_size=5))
    mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]))
    places = np.random.default_rng(draw(st.integers(0, 99))).integers(0, len(values), (8, 8))
    grey = Image.fromarray(np.array(values, np.uint8)[places])
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16) if mode == "I;16" else grey.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return {"x.png": buffer.getvalue()}


TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["", "1", "-1", "nan", "1\\2", "MONOCHROME1", "INVERSE", "US"]))
NUMBERS = st.one_of(st.integers(-70_000, 70_000), st.floats(allow_nan=True, allow_infinity=True, width=32))
ELEMENTS = (
    "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation "
    "NumberOfFrames WindowCenter WindowWidth RescaleSlope RescaleIntercept VOILUTFunction PresentationLUTShape "
    "PixelPaddingValue PlanarConfiguration SmallestImagePixelValue TransferSyntaxUID SOPClassUID PatientAge"
).split()


@st.composite
def dicoms(draw: st.DrawFn) -> Files:
    """A DICOM file some of whose elements hold what they should not, or are missing."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    data.Rows = data.Columns = 16
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = (RAMP >> 4).tobytes()
    values = st.one_of(st.none(), NUMBERS, TEXTS, st.lists(NUMBERS, max_size=3))
    changes = draw(st.dictionaries(st.sampled_from(ELEMENTS), values, max_size=4))
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for keyword, value in changes.items():
                where = data.file_meta if keyword == "TransferSyntaxUID" else data
                if value is None and keyword in where:
                    delattr(where, keyword)
                else:
                    setattr(where, keyword, value)
            pydicom.dcmwrite(buffer, data, implicit_vr=False, little_endian=True)
    except Exception:  # pydicom cannot write such a file, so nobody has it
        reject()
    return {"film.dcm": buffer.getvalue()}


def json_values(leaves: st.SearchStrategy, keys: st.SearchStrategy[str]) -> st.SearchStrategy:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)),
        max_leaves=12,
    )


LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.sampled_from(sorted(CLASSES)))
BOX_KEYS = st.sampled_from(
    "class finding label name x y w h width height bbox box x_min y_min x_max y_max x1 y1 x2 y2 image_width".split()
)
BOXES = st.one_of(json_values(LEAVES, BOX_KEYS), st.text('Lung esion0123456789.,;[]{}" :', max_size=40))


@st.composite
def boxes(draw: st.DrawFn) -> Files:
    return {"boxes.json": json.dumps(draw(BOXES)).encode()}


@st.composite
def prompts(draw: st.DrawFn) -> Files:
    """A file of prompts of any kind, with any columns and values."""
    columns = st.sampled_from([*COLUMNS, *ENCODED, "other"])
    plain = st.one_of(LEAVES, st.sampled_from(["Clear lungs.", "PA", "Male", "54", "lungs=a.png", "ERROR"]))
    rows = draw(st.lists(st.dictionaries(columns, st.one_of(plain, BOXES), max_size=6), max_size=4))
    for number, row in enumerate(rows):
        row |= {"name": f"p{number}", "impression": "Clear lungs."} if draw(st.booleans()) else {}
    kind = draw(st.sampled_from(["csv", "json", "jsonl", "txt"]))
    if kind == "json":
        text = json.dumps(rows)
    elif kind == "jsonl":
        text = "\n".join(map(json.dumps, rows))
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
        text = "\n".join(",".join(line) for line in cells)
    return {f"prompts.{kind}": text.encode("utf-8", "surrogatepass")}


WORDS = (
    "no evidence of small left right pleural effusion pneumothorax . , ; heart is enlarged without and or XXXX".split()
)


@st.composite
def reports(draw: st.DrawFn) -> Files:
    words = st.one_of(st.sampled_from(WORDS), st.text(max_size=6))
    return {"report.txt": " ".join(draw(st.lists(words, max_size=30))).encode("utf-8", "surrogatepass")}


@st.composite
def answers(draw: st.DrawFn) -> Files:
    """The body of a response: what a server should say, somewhere among what it should not."""
    keys = st.sampled_from("nonce findings impression report content text reasoning usage choices message".split())
    report = json.dumps(draw(json_values(st.one_of(LEAVES, st.just("k")), keys)))
    wrapped = draw(st.sampled_from(["{}", "```json\n{}\n```", "<think>{{</think>{}", "Sure: {} {}", "{}}}", "[{}"]))
    content = draw(st.sampled_from([report, wrapped.replace("{}", report), [{"type": "text", "text": report}], None]))
    choice = {"message": {"content": content}, "finish_reason": draw(st.sampled_from(["stop", "length", None, 3]))}
    body = {"choices": [choice], "usage": draw(json_values(LEAVES, keys))}
    body = draw(st.one_of(st.just(body), json_values(LEAVES, keys)))
    return {"answer.json": json.dumps(body).encode()}


def tables(source: str) -> st.SearchStrategy[Files]:
    return st.just(_files_of(source))


@cache
def _files_of(source: str) -> Files:
    with tempfile.TemporaryDirectory() as place:
        folder = DATASETS[source].lay_out(Path(place))
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@cache
def weights() -> dict[str, Files]:
    """A tiny transformer as diffusers saves it, and one as the authors release it."""
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=8)
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        saved = {path.name: path.read_bytes() for path in Path(place).iterdir()}
    buffer = io.BytesIO()
    torch.save({"state_dict_ema": {name: value[:1] for name, value in model.state_dict().items()}}, buffer)
    return {"folder": saved, "released": {"model.pth": buffer.getvalue()}}


def _read_dataset(source: str, folder: Path) -> None:
    registry.load(source, folder)
    registry.repairs(source, folder)


def _only_file(read: Callable[[Path], Any], folder: Path) -> Any:
    (path,) = folder.iterdir()
    return read(path)


def _text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogatepass")


IMAGES = st.one_of(damaged(one_picture()), picture_arrays())
READERS = {
    "radiographs": Reader(IMAGES, partial(_only_file, read_image), (ImageError,), 15),
    "masks": Reader(IMAGES, partial(_only_file, read_mask), (ImageError,), 15),
    "DICOM": Reader(st.one_of(dicoms(), damaged(dicoms())), partial(_only_file, read_image), (ImageError,), 15),
    **{
        f"tables of {source}": Reader(damaged(tables(source)), partial(_read_dataset, source), (RecordError,), 1)
        for source in DATASETS
    },
    "reports": Reader(reports(), partial(_only_file, lambda path: report_parser.read(_text_of(path))), (), 8),
    "prompts": Reader(st.one_of(prompts(), damaged(prompts())), partial(_only_file, read_prompts), (PromptError,), 10),
    "boxes": Reader(
        boxes(), partial(_only_file, lambda path: read_boxes(json.loads(path.read_bytes()))), (ConditionError,), 8
    ),
    "answers of language models": Reader(
        st.one_of(answers(), damaged(answers())),
        partial(_only_file, lambda path: read_answer("k", path.read_bytes())),
        (),
        8,
    ),
    "weights of a folder": Reader(
        damaged(st.deferred(lambda: st.just(weights()["folder"]))),
        partial(from_pretrained, ChexGenTransformer, dtype=torch.float32),
        (WeightsError,),
        2,
    ),
    "released weights": Reader(
        damaged(st.deferred(lambda: st.just(weights()["released"]))),
        partial(_only_file, load_released),
        (CheckpointError,),
        2,
    ),
}
