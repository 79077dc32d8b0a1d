"""The embedded cohort: radiographs computed from a real, labelled chest CT, with exact ground truth.

    from chexgen_lib.phantom.render import render
    record = dict(image_id="1", patient_id="p", source="demo", view="PA", age=60, sex="F", Effusion=1)
    radiograph = render(record)

A radiograph is a line integral of attenuation, so image, masks, boxes and severity are projections of one 3-D
truth. An image is a pure function of its record. One anatomy underlies all patients (see `anatomy`): the
cohort stands in for real data where there is none, and is not evidence about patients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from chexgen_lib.phantom import acquisition, anatomy, findings, patient
from chexgen_lib.phantom.anatomy import PhantomError
from chexgen_lib.phantom.chest import Chest
from chexgen_lib.records import FINDINGS, OPACITIES, SEVERITIES, SIDES
from chexgen_lib.storage import seed_of

__all__ = ["PhantomError", "Radiograph", "render", "render_many"]

VIEWS = {"PA": "PA", "AP": "AP", "AP SUPINE": "AP", "FRONTAL": "PA", "LATERAL": "LATERAL"}
THICKNESS = {"lungs": 25.0, "heart": 12.0, "ribs": 2.5}  # mm from which a structure counts as shown
# Share of a finding's greatest thickness from which it counts as shown; pneumothorax: where it is mostly air.
SHARE = {"Pneumothorax": 0.45, "Support Devices": 0.1}
USUAL_SHARE = 0.25


@dataclass(frozen=True)
class Radiograph:
    """A rendered record of S x S pixels; every part is a projection of the same 3-D truth.

    Attributes:
        image: float32 [S, S] in 0..1, 0 air, 1 bone.
        masks: bool [S, S] for "lungs", "heart", "ribs" and each finding that is present.
        boxes: dicts of finding, x, y, w, h (top left corner and size) as fractions of the image.
        severity: finding -> 0..1, the share of the lungs' volume where a finding fills lung, else of the largest
            extent.
        truth: each of the 14 findings -> 1 or 0.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]
    boxes: list[dict]
    severity: dict[str, float]
    truth: dict[str, int]


def render(record: dict, size: int = 128) -> Radiograph:
    """Render one record of the Record table (`chexgen_lib.records`); keys it does not know are ignored.

    Findings at 1 are shown, at 0 or None not, `uncertain` ones with probability 1/2. `details` (finding,
    side, site, severity) are followed where given and otherwise sampled from the image's seed; those of other
    labels are ignored. `site` may name the acquisition site ("A" or "B"); by default it follows the source.

    Raises:
        PhantomError: missing key, view that cannot be rendered, unknown side, severity or site, size outside
            32..1024.
    """
    view = _check(record, size)
    chest_ct = anatomy.load()
    site = acquisition.SITES[_site(record)]
    supine = record["view"] in ("AP", "AP SUPINE")
    body = patient.sample(record, supine)
    mu = patient.tissue(chest_ct, body, record)
    beam = acquisition.aim(site, view, body, patient.rng("beam", record["image_id"]))
    to_canonical = patient.to_canonical(beam.points, body)
    plain = acquisition.trace(to_canonical(patient.Effects()), beam)
    exposure = acquisition.expose(acquisition.slabs(mu, beam), plain, view)
    chest = Chest(chest_ct, mu.reshape(-1), supine)
    truth = _truth(record)
    shown = [finding for finding in findings.RENDER if truth[finding] and not _implied(finding, truth)]
    for finding in shown:
        for place in findings.plan(record, finding):
            findings.RENDER[finding](chest, **place)
    moved = chest.effects != patient.Effects()
    rays = acquisition.trace(to_canonical(chest.effects), beam) if moved else plain
    lines = acquisition.project(acquisition.slabs(mu, beam), rays, size)[0].numpy()
    noise = patient.rng("noise", record["image_id"])
    image = acquisition.develop(acquisition.WATER * lines, exposure, site, noise)
    masks = _masks(chest, rays, size)
    return Radiograph(image, masks, _boxes(masks), chest.severity, truth)


def _check(record: dict, size: int) -> str:
    """The view to render; raises PhantomError for a record that cannot be rendered."""
    name = record.get("image_id", "?")
    missing = [key for key in ("image_id", "patient_id", "source", "view") if record.get(key) is None]
    if missing:
        raise PhantomError(f"record {name}: {', '.join(missing)} missing; every Record has them")
    if record["view"] not in VIEWS:
        known = ", ".join(VIEWS)
        raise PhantomError(f"record {name}: view {record['view']!r} cannot be rendered; use one of {known}")
    if not isinstance(size, int) or not 32 <= size <= 1024:
        raise PhantomError(f"record {name}: size {size!r} px is not a whole number in 32..1024")
    for detail in record.get("details") or ():
        for key, known in (("side", (*SIDES, None)), ("severity", (*SEVERITIES, None))):
            if detail.get(key) not in known:
                raise PhantomError(f"record {name}: details {key} {detail.get(key)!r} is not one of {known}")
    return VIEWS[record["view"]]


def _site(record: dict) -> str:
    """The acquisition site: the record's, else one of the two by its source."""
    if record.get("site") is not None:
        if record["site"] not in acquisition.SITES:
            raise PhantomError(f"record {record['image_id']}: site {record['site']!r} is not one of A, B")
        return record["site"]
    return "AB"[seed_of(str(record["source"]), 1) % 2]


def _truth(record: dict) -> dict[str, int]:
    """The 14 findings as rendered: uncertain ones decided by the seed, implied ones added."""
    uncertain = set(record.get("uncertain") or ())
    truth = {finding: int(record.get(finding) == 1) for finding in FINDINGS}
    for finding in uncertain & set(findings.RENDER):
        truth[finding] = int(patient.rng("uncertain", finding, record["image_id"]).random() < 0.5)
    truth["Lung Opacity"] = max(truth[finding] for finding in ("Lung Opacity", *OPACITIES))
    pathologies = [f for f in FINDINGS if f not in ("No Finding", "Support Devices")]
    truth["No Finding"] = int(not any(truth[finding] for finding in pathologies))
    return truth


def _implied(finding: str, truth: dict[str, int]) -> bool:
    """Whether a finding shows as another: a lung opacity that has a name is not rendered a second time."""
    return finding == "Lung Opacity" and any(truth[other] for other in OPACITIES)


def _masks(chest: Chest, rays: acquisition.Rays, size: int) -> dict[str, np.ndarray]:
    """Projected thickness of structures and findings, thresholded; sampled at half the image's resolution."""
    names = [*THICKNESS, *chest.regions]
    shape = chest.anatomy.channels.shape[1:]
    parts = [_halve(voxels, chest.anatomy.coarse).reshape(1, *shape) for voxels in chest.regions.values()]
    volume = torch.from_numpy(np.concatenate([chest.anatomy.channels, *parts], dtype=np.float32))
    half = max(64, size // 2)
    thick = acquisition.project(volume, rays, half)
    thick = F.interpolate(thick[None], (size, size), mode="bilinear", align_corners=False)[0].numpy()
    masks = {}
    for name, depth in zip(names, thick, strict=True):
        masks[name] = depth > THICKNESS.get(name, max(0.5, SHARE.get(name, USUAL_SHARE) * float(depth.max())))
    if "Cardiomegaly" in masks:
        masks["Cardiomegaly"] = masks["heart"]
    opacities = [masks[finding] for finding in OPACITIES if finding in masks]
    if opacities:
        masks["Lung Opacity"] = np.logical_or.reduce(opacities)
    return masks


def _halve(voxels: list[np.ndarray], coarse: np.ndarray) -> np.ndarray:
    """Share of each voxel of the halved grid [Z*Y*X/8] that is in the union of flat index lists."""
    count = np.bincount(coarse[np.concatenate(voxels)], minlength=len(coarse) // 8)
    return np.minimum(count / np.float32(8), 1)


def _boxes(masks: dict[str, np.ndarray]) -> list[dict]:
    """The smallest box around each finding's mask; findings outside the image have none."""
    boxes = []
    for finding in FINDINGS:
        rows, columns = np.nonzero(masks[finding]) if finding in masks else ((), ())
        if len(rows):
            left, top = columns.min(), rows.min()
            width, height = columns.max() + 1 - left, rows.max() + 1 - top
            x, y, w, h = (float(v) / len(masks[finding]) for v in (left, top, width, height))
            boxes.append(dict(finding=finding, x=x, y=y, w=w, h=h))
    return boxes


class _Images(torch.utils.data.Dataset):
    def __init__(self, records: Sequence[dict], size: int):
        self.records, self.size = records, size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Radiograph:
        record = self.records[index]
        try:
            return render(record, self.size)
        except PhantomError:
            raise
        except Exception as error:
            raise PhantomError(f"record {record.get('image_id')}: {type(error).__name__}: {error}") from error


def render_many(records: Sequence[dict], size: int = 128, workers: int = 2) -> Iterator[Radiograph]:
    """Render records in their order in `workers` processes of one thread each (0: in this process).

    Raises:
        PhantomError: naming the image_id of the record that failed.
    """
    anatomy.load()  # before the processes start, so that they share it
    loader = torch.utils.data.DataLoader(
        _Images(list(records), size),
        batch_size=None,
        num_workers=min(workers, len(records)),
        collate_fn=_same,
        worker_init_fn=_one_thread,
        generator=torch.Generator().manual_seed(0),  # otherwise the loader takes the global generator
    )
    yield from loader


def _one_thread(worker: int) -> None:
    threadpool_limits(1)  # torch limits its own threads; NumPy's would use every core in every process


def _same(radiograph: Radiograph) -> Radiograph:
    return radiograph
