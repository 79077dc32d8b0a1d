"""Annotated radiographs, and requests for images that follow their masks and boxes.

The images are those of the embedded cohort with its truth, real radiographs of annotated datasets
(`annotation_sources`), or a folder of some with lung masks. A request takes one image's mask or boxes; the control
adapter samples from the condition image that shows them.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import ndimage

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError, read_image, resize, to_uint8
from chexgen_lib.masks import read_mask
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.records import FINDINGS, FRONTAL
from chexgen_lib.sampling.conditions import CLASSES, draw
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import hash_key

# What is requested of one image: the mask of a class, or boxes of all its findings and foreign objects.
KINDS = {"pneumothorax": "Pneumothorax", "lungs": "lungs", "ribs": "ribs", "boxes": None}
CANDIDATES = 4  # times the requests: the images of which masks are read
LARGEST_BOX = 0.5  # share of the image; a box around nearly everything requests nothing
ALIKE = 10  # images; letters that more names begin with are no patient's, and of a number this is in doubt
# A patient's name that has not 8 letters: of CheXpert (Kermany: person12), MIMIC-CXR and BIDS.
PATIENT = re.compile(r"(?i:(?:patient|person|subject)[-_]?\d+|p1\d{7}|sub-[a-z0-9]+)")
ADDED = re.compile(r"(?i)^masks?[_-]|[_-](?:lungs?[_-])?masks?$|_0000$")  # to a name in folders of images and masks
# Of images and masks: ours, nnU-Net's, and those of Shenzhen's at Kaggle and COVID-QU-Ex.
PLACES = (("images", "imagesTr", "CXR_png"), ("masks", "labelsTr", "lung masks"))
LUNGS_PROMPT = "Frontal chest radiograph. Pneumonia."  # of all images in a folder of lung masks


@dataclass(frozen=True)
class Annotated:
    """Radiographs with their masks.

    Attributes:
        table: image_id, patient_id, split and prompt of each.
        images: uint8 [N, H, W].
        masks: bool [N, C, H, W], a channel for each of `classes`; or what draws them when it is indexed, by rows or by
            a row and a channel.
        places: the boxes that the images' dataset gives, of each image; None: they are drawn around its masks.
        kinds: the kind of annotation that each image has, also where that shows nothing; None: all that it shows.
        known: bool [N, C], which classes are annotated in each image; None: all.
    """

    table: pl.DataFrame
    images: np.ndarray
    masks: np.ndarray
    classes: tuple[str, ...]
    places: tuple[list[dict], ...] | None = None
    kinds: tuple[str, ...] | None = None
    known: np.ndarray | None = None

    def of(self, split: str) -> np.ndarray:
        """Rows of "train", or of "held out": all others."""
        train = (self.table["split"] == "train").to_numpy()
        return np.flatnonzero(train if split == "train" else ~train)

    def mask(self, row: int, name: str) -> np.ndarray:
        return self.masks[row, self.classes.index(name)]

    def boxes(self, row: int) -> list[dict]:
        """One box around each finding of an image, and around each foreign object, largest ones left out.

        Of a dataset with boxes its own, all of them.
        """
        if self.places is not None:
            return self.places[row]
        boxes = []
        for name in (name for name in self.classes if name in FINDINGS):
            boxes += [{"class": name, **box} for box in boxes_of(self.mask(row, name), name == "Support Devices")]
        return [box for box in boxes if box["w"] * box["h"] <= LARGEST_BOX]

    def shows(self, row: int, kind: str) -> bool:
        """Whether there is anything of a kind in an image."""
        if kind == "boxes":
            return bool(self.boxes(row))
        return KINDS[kind] in self.classes and bool(self.mask(row, KINDS[kind]).any())

    def has(self, row: int, kind: str) -> bool:
        """Whether an image can be requested by a kind of annotation: of a dataset of that kind also one without it."""
        return self.shows(row, kind) if self.kinds is None else self.kinds[row] == kind

    def condition_image(self, row: int, kind: str) -> np.ndarray:
        """The condition image uint8 [H, W, 3] of one request; black where there is nothing."""
        size = self.images.shape[1]
        if self.kinds is not None and not self.shows(row, kind):
            return np.zeros((size, size, 3), np.uint8)
        if kind == "boxes":
            return draw(size, boxes=self.boxes(row))
        return draw(size, {KINDS[kind]: self.mask(row, KINDS[kind])})


def load_embedded(
    folder: Path, resolution: int, train_images: int, seed: int = 0, sources: Sequence[str] | None = None
) -> Annotated:
    """Frontal images of the embedded cohort and their truth: `train_images` of the train split, all others.

    Every pneumothorax is among the training images, the rest is sampled by a seeded hash. `sources`: None takes all.

    Raises:
        CohortError: if there is no cohort, or it is one of real radiographs, which has no masks.
    """
    table = frontal(folder)
    if sources is not None:
        table = table.filter(pl.col("source").is_in(list(sources)))
    rank = pl.Series([hash_key(f"{seed}:{i}") for i in table["image_id"]])
    ordered = table.with_columns(rank=rank).sort(pl.col("Pneumothorax") != 1, "rank", nulls_last=True)
    train = ordered.filter(split="train").head(train_images)
    return with_truth(folder, resolution, pl.concat([train, ordered.filter(pl.col("split") != "train")]))


def frontal(folder: Path) -> pl.DataFrame:
    """The frontal images of a cohort, with the column `row`. Raises CohortError if there is none."""
    return layout.load(folder).with_row_index("row").filter(pl.col("view").is_in(FRONTAL))


def with_truth(folder: Path, resolution: int, table: pl.DataFrame) -> Annotated:
    """Images and masks of the rows `row` of the embedded cohort, in its order.

    Raises:
        CohortError: if the cohort is one of real radiographs, which has no masks.
    """
    if not layout.has_masks(folder):
        raise CohortError(f"{folder}: real radiographs come without masks; name a folder of them as `lung_masks`")
    table = table.sort("row")
    rows = table["row"].to_list()
    named = [i for i, finding in enumerate(FINDINGS) if finding != "No Finding"]
    masks = [layout.load_anatomy_masks(folder, rows), layout.load_finding_masks(folder, rows)[:, named]]
    images = layout.load_images(folder, resolution, rows)
    about = table.select("image_id", "patient_id", "split", "prompt")
    return Annotated(about, images, np.concatenate(masks, axis=1), CLASSES)


def load_lung_masks(folder: Path, resolution: int, prompt: str = LUNGS_PROMPT, held_out: float = 0.2) -> Annotated:
    """Real radiographs `folder/images/NAME.*` with lung masks `folder/masks/NAME.*`, all with one prompt.

    The folder names no patients, see `_patients`: the images of one stay in one split; a hash decides which patients
    are held out. A mask may also be named NAME_mask or mask_NAME and be reduced, an image be named NAME_0000; folders
    may have the names in `PLACES`.

    Raises:
        CohortError: if the folder has no pairs, an image or mask has no partner, two have one name, a pair differs
            in proportions, or most names begin with the same 8 digits.
        ImageError: if a file cannot be read, or does not tell what it marks (`masks.read_mask`).
    """
    places = [_only_folder(folder, names) for names in PLACES]
    images, masks = map(_by_name, places)
    if alone := images.keys() ^ masks.keys():
        images, masks = (_by_name(place, alone) for place in places)
    if alone := sorted(images.keys() ^ masks.keys()):
        raise CohortError(f"{folder}: {len(alone)} images or masks have no partner, first {alone[0]!r}")
    if not images:
        raise CohortError(f"{folder} holds no images/ and masks/: lay out one mask of the same name for each image")
    patients = _patients(folder, list(images))
    shuffled = sorted(set(patients), key=hash_key)
    test = shuffled[: max(1, round(held_out * len(shuffled)))]
    table = pl.DataFrame(
        {
            "image_id": [f"lung-masks:{name}" for name in images],
            "patient_id": [f"lung-masks:{patient}" for patient in patients],
            "split": ["test" if patient in test else "train" for patient in patients],
            "prompt": prompt,
        }
    )
    pairs = [_image_and_lungs(path, masks[name], resolution) for name, path in images.items()]
    pixels, lungs = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return Annotated(table, pixels, lungs[:, None], ("lungs",))


def _patients(folder: Path, names: list[str]) -> list[str]:
    """The patient of each name: what `PATIENT` finds, or else its first 8 letters (NIH's 00000001_000).

    Where more than `ALIKE` names begin with the same letters, these are of a hospital (Montgomery's MCUCXR_0001_0) or a
    disease (Viral Pneumonia-1), and each image without a number is a patient's of its own.
    """
    found = [PATIENT.match(name) for name in names]
    begins = [match[0] if match else name[:8] for match, name in zip(found, names, strict=True)]
    counts = Counter(begins)
    first, most = counts.most_common(1)[0]
    if first.isdecimal() and most > max(ALIKE, len(names) // 2):  # a patient's number, or a date
        raise CohortError(
            f"{folder}: {most} of {len(names)} names begin with {first!r}, so that all these would be one "
            "patient's; rename images and masks so that their first 8 letters tell patients apart"
        )
    told = [match or begin.isdecimal() for match, begin in zip(found, begins, strict=True)]
    letters = Counter(begin for begin, one in zip(begins, told, strict=True) if not one)
    if max(letters.values(), default=0) <= ALIKE:
        return begins
    return [begin if one else name for begin, name, one in zip(begins, names, told, strict=True)]


def _only_folder(folder: Path, names: Sequence[str]) -> Path:
    """The folder that is there under one of several names, else that of the first name."""
    there = [folder / name for name in names if (folder / name).is_dir()]
    if len(there) > 1:
        raise CohortError(f"{folder}: holds {there[0].name}/ and {there[1].name}/; move away the one that is not meant")
    return there[0] if there else folder / names[0]


def _by_name(folder: Path, alone: Collection[str] = ()) -> dict[str, Path]:
    """The files of a folder by name without suffix; hidden files and those of file managers are none.

    alone: the names that are taken without what is `ADDED` to them.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.is_file() and not path.name.startswith((".", "Thumbs.db", "desktop.ini")):
            name = ADDED.sub("", path.stem) if path.stem in alone else path.stem
            if other := files.get(name):
                raise CohortError(f"{folder}: {other.name} and {path.name} have one name; leave one of them")
            files[name] = path
    return files


def _image_and_lungs(path: Path, mask_path: Path, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = read_image(path), read_mask(mask_path, whole_organ=True)
    (height, width), (mask_height, mask_width) = image.shape, mask.shape
    if abs(height * mask_width / width - mask_height) >= 1:
        raise CohortError(
            f"{mask_path}: {mask_width} x {mask_height} px, but {path.name} has {width} x {height}: a mask covers its "
            "whole image; export it again at the image's size"
        )
    lungs = resize(mask.astype(np.float32), resolution) > 0.5
    if not lungs.any():
        raise ImageError(f"{mask_path}: nothing marked is left at {resolution} px; draw it again or leave the pair out")
    return to_uint8(resize(image, resolution)), lungs


def boxes_of(mask: np.ndarray, each_object: bool = False, smallest: int = 4) -> list[dict]:
    """Boxes (x, y, w, h as fractions of the image) around a bool mask [H, W], or around each connected part of it.

    Parts of fewer than `smallest` pixels are specks and get none.
    """
    if not mask.any():  # as most are, and labelling takes forty times as long as looking
        return []
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    parts = np.where(sizes[parts] >= smallest, parts, 0)
    if not each_object:
        parts = (parts > 0).astype(int)
    height, width = mask.shape
    return [
        dict(
            x=columns.start / width,
            y=rows.start / height,
            w=(columns.stop - columns.start) / width,
            h=(rows.stop - rows.start) / height,
        )
        for place in ndimage.find_objects(parts)
        if place is not None
        for rows, columns in [place]
    ]


def choose_requests(data: Annotated, split: str, per_kind: int | Mapping[str, int], seed: int = 0) -> pl.DataFrame:
    """Up to `per_kind` images of a split for each kind of annotation: row, kind, and the image's id and prompt.

    Those of "train" include images of annotated datasets that show nothing, as often as there are such; of "held out",
    whose samples are compared with the request, all show something. Datasets with one kind of annotation have as large
    a share of the requests as of the images, however few these are: each trains networks of its own.

    per_kind: a number for all of `KINDS`, or one for each kind that is requested.

    Raises:
        CohortError: if the split has nothing to request.
    """
    chosen = []
    for kind, n in (per_kind if isinstance(per_kind, Mapping) else dict.fromkeys(KINDS, per_kind)).items():
        name = KINDS[kind]
        if name is not None and name not in data.classes:
            continue
        order = np.random.default_rng(seed).permutation(data.of(split))
        usable = (int(row) for row in order if (data.has if split == "train" else data.shows)(row, kind))
        usable = usable if data.kinds is None else _in_proportion(list(usable), data.table["image_id"])
        chosen += [{"row": row, "kind": kind} for row, _ in zip(usable, range(n), strict=False)]
    if not chosen:
        raise CohortError(f"no {split} image has a mask or a box to request")
    requests = pl.DataFrame(chosen)
    about = data.table[requests["row"].to_list()].select("image_id", "prompt", "patient_id")
    requests = pl.concat([requests, about], how="horizontal")
    return requests.with_columns(pl.format("{}:{}", "image_id", "kind").alias("image_id"))


def _in_proportion(rows: list[int], image_ids: pl.Series) -> list[int]:
    """Rows in an order in which the first n are, for any n, of all datasets in proportion; within each as they were."""
    table = pl.DataFrame({"row": rows, "source": image_ids[rows].str.extract(r"^([^:]+):")})
    place = (pl.int_range(pl.len()) + 0.5) / pl.len()
    return table.with_columns(place=place.over("source")).sort("place", maintain_order=True)["row"].to_list()


def varied(requests: pl.DataFrame, n: int) -> list[int]:
    """`n` requests for a figure, the kinds in turn, kept together."""
    turn = pl.int_range(pl.len()).over("kind")
    chosen = requests.with_row_index("request").with_columns(turn=turn).sort("turn", "request").head(n)
    return chosen["request"].sort().to_list()


def condition_images(data: Annotated, requests: pl.DataFrame) -> np.ndarray:
    """Condition images uint8 [R, H, W, 3] of requests."""
    return np.stack([data.condition_image(row, kind) for row, kind in requests.select("row", "kind").iter_rows()])


def sample_annotated_pool(
    pipeline: ChexGenPipeline, data: Annotated, requests: pl.DataFrame, folder: str | Path, sampling: Sampling
) -> np.ndarray:
    """What `sample_pool` samples with control for some requests: uint8 [R, copies, H, W].

    Its manifest gets the columns record (the image whose annotation is requested), kind, condition (the condition
    image: a PNG below the folder, for other generators to sample from) and condition_hash.

    Args:
        requests: rows of `choose_requests`.
    """
    images = condition_images(data, requests)
    about = requests.with_columns(
        data.table["image_id"].gather(requests["row"]).alias("record"),
        pl.Series("condition", [f"conditions/{k:05d}.png" for k in range(len(images))]),
        pl.Series("condition_hash", [condition_hash(image) for image in images]),
    )
    return sample_pool(pipeline, about, folder, sampling, conditions=images)


def condition_hash(image: np.ndarray) -> str:
    """16 hexadecimal digits that identify a condition image uint8 [H, W, 3]."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def overlap(a: dict, b: dict) -> float:
    """Intersection over union of two boxes."""
    width = min(a["x"] + a["w"], b["x"] + b["w"]) - max(a["x"], b["x"])
    height = min(a["y"] + a["h"], b["y"] + b["h"]) - max(a["y"], b["y"])
    shared = max(width, 0) * max(height, 0)
    return shared / (a["w"] * a["h"] + b["w"] * b["h"] - shared)
