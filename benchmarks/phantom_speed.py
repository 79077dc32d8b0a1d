"""Images per second of the embedded cohort, beside a plain projector that does the same work without
shortcuts.

    python benchmarks/phantom_speed.py        # writes benchmarks/phantom_speed.csv

Plain: the deformation is evaluated at every sample of every ray (not on a lattice), and attenuation and
each mask are interpolated on the full grid by `scipy.ndimage.map_coordinates`. Patients, findings, depth
steps and film are the same code, so the images agree up to the lattice; the table says how well. Both are
timed in turns on the same records.
"""

import csv
import os
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from scipy import ndimage

from chexgen_lib import phantom
from chexgen_lib.phantom import acquisition, anatomy, findings, patient
from chexgen_lib.records import FINDINGS

SIZE = 128  # pixels
OURS, PLAIN = 96, 6  # images
ROUNDS = 3


def records(count: int) -> list[dict]:
    """Patients with one or two findings of all kinds; one in four radiographs is lateral, one in five is
    normal."""
    rows = []
    for i in range(count):
        shown = {} if i % 5 == 0 else {FINDINGS[1 + i % 13]: 1, FINDINGS[1 + 5 * i % 13]: 1}
        base = dict(
            image_id=f"b{i}", patient_id=f"b{i}", source=("nih", "chexpert")[i % 2], age=20.0 + i % 70
        )
        rows.append(base | dict(view=("PA", "AP", "PA", "LATERAL")[i % 4], sex="MF"[i % 2]) | shown)
    return rows


def plain_render(record: dict, size: int = SIZE) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Image and projected thickness (mm) of each mask, every sample computed on its own."""
    view, site = phantom._check(record, size), acquisition.SITES[phantom._site(record)]
    ct, supine = anatomy.load(), record["view"] in ("AP", "AP SUPINE")
    body = patient.draw(record, supine)
    mu = patient.tissue(ct, body, record)
    beam = acquisition.aim(site, view, body, patient.rng("beam", record["image_id"]))
    mean = acquisition.expose(
        torch.from_numpy(mu)[None], patient.to_canonical(beam.points, body)(patient.Effects()), beam, view
    )
    chest = findings.Chest(ct, mu.reshape(-1), supine)
    truth = phantom._truth(record)
    for finding in (f for f in findings.RENDER if truth[f] and not phantom._implied(f, truth)):
        for place in findings.plan(record, finding):
            findings.RENDER[finding](chest, **place)
    first, step = _frame(beam, size)
    index = np.indices((beam.depths, size, size)).reshape(3, -1).T
    points = first(index, step)
    voxels = (
        patient.to_canonical(points, body)(chest.effects)[:, ::-1] / anatomy.SPACING + anatomy.origin()
    ).T
    volumes = {"image": mu} | {
        name: _volume(chest, name) for name in ("lungs", "heart", "ribs", *chest.regions)
    }
    lines = {
        name: ndimage.map_coordinates(volume, voxels, order=1, mode="nearest")
        .reshape(beam.depths, size, size)
        .sum(axis=0)
        * (beam.thickness / beam.depths)
        for name, volume in volumes.items()
    }
    noise = patient.rng("noise", record["image_id"])
    image = acquisition.develop(acquisition.WATER * lines.pop("image"), mean, site, noise)
    return image, lines


def _frame(beam: acquisition.Beam, size: int):
    """A function from sample indices (depth, row, column) to points in mm, exact for a cone beam."""
    corners = beam.points[[0, -1]][:, [0, -1]][:, :, [0, -1]]  # the 8 corners of the beam

    def place(index: np.ndarray, step: np.ndarray) -> np.ndarray:
        d, r, c = ((index + 0.5) / step).T[..., None]
        near, far = (
            (1 - r) * ((1 - c) * side[0, 0] + c * side[0, 1]) + r * ((1 - c) * side[1, 0] + c * side[1, 1])
            for side in corners
        )
        return (1 - d) * near + d * far

    return place, np.array([beam.depths, size, size])


def _volume(chest: findings.Chest, name: str) -> np.ndarray:
    labels = {
        "lungs": anatomy.LUNGS,
        "heart": (anatomy.HEART,),
        "ribs": sum(map(list, anatomy.RIBS.values()), []),
    }
    inside = np.zeros(chest.flat.shape, np.float32)
    inside[anatomy.where(*labels[name]) if name in labels else np.concatenate(chest.regions[name])] = 1
    return inside.reshape(anatomy.GRID)


def main() -> None:
    torch.set_num_threads(1)
    rows = records(OURS)
    anatomy.load()
    seconds = {"ours, 2 workers": [], "ours, 1 process": [], "plain, 1 process": []}
    ours, plain = [], []
    for turn in range(ROUNDS):
        start = perf_counter()
        for _ in phantom.render_many(rows, SIZE, workers=2):
            pass
        seconds["ours, 2 workers"].append((perf_counter() - start) / OURS)
        few = rows[turn * PLAIN : (turn + 1) * PLAIN]
        start = perf_counter()
        ours += [phantom.render(row, SIZE).image for row in few]
        seconds["ours, 1 process"].append((perf_counter() - start) / PLAIN)
        start = perf_counter()
        plain += [plain_render(row)[0] for row in few]
        seconds["plain, 1 process"].append((perf_counter() - start) / PLAIN)
    rms = float(np.sqrt(np.mean((np.array(ours) - np.array(plain)) ** 2)))
    reference = float(np.median(seconds["plain, 1 process"]))
    path = Path(__file__).with_suffix(".csv")
    with open(path.with_suffix(".part"), "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["method", "size_px", "rounds", "images_per_s", "times_plain", "rms_difference", "cpus"]
        )
        for method, each in seconds.items():
            rate = 1 / float(np.median(each))
            row = [
                method,
                SIZE,
                ROUNDS,
                round(rate, 2),
                round(rate * reference, 1),
                round(rms, 4),
                os.cpu_count(),
            ]
            table.writerow(row)
            print(*row, sep="\t")
    os.replace(path.with_suffix(".part"), path)


if __name__ == "__main__":
    main()
