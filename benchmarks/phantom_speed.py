"""The embedded cohort in images per second, beside a plain projector that does the same work.

    python benchmarks/phantom_speed.py        # writes benchmarks/phantom_speed.csv

Plain: the deformation is evaluated at every sample of every ray (not on a lattice), and attenuation and
each mask are interpolated on the full grid by `scipy.ndimage.map_coordinates`. Patients, findings and
film are the same code, so the images agree up to sampling; the table says how well. They are timed in turns.
"""

import csv
import os
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from scipy import ndimage

from chexgen_lib.phantom import acquisition, anatomy, findings, patient
from chexgen_lib.phantom import render as phantom
from chexgen_lib.phantom.chest import Chest
from chexgen_lib.records import FINDINGS

SIZE = 128  # pixels
OURS, PLAIN = 48, 3  # images
ROUNDS = 3
DEPTHS = 72  # samples of a ray in the plain projector; ours crosses 64 or 85 planes


def records(count: int) -> list[dict]:
    """Patients with up to two findings; one radiograph in four is lateral, one in five without finding."""
    rows = []
    for i in range(count):
        shown = {} if i % 5 == 0 else {FINDINGS[1 + i % 13]: 1, FINDINGS[1 + 5 * i % 13]: 1}
        base = dict(image_id=f"b{i}", patient_id=f"b{i}", source=("nih", "chexpert")[i % 2], age=20.0 + i % 70)
        rows.append(base | dict(view=("PA", "AP", "PA", "LATERAL")[i % 4], sex="MF"[i % 2]) | shown)
    return rows


def plain_render(record: dict, size: int = SIZE) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Image and projected thickness (mm) of each mask, every sample computed on its own."""
    view, site = phantom._check(record, size), acquisition.SITES[phantom._site(record)]
    ct, supine = anatomy.load(), record["view"] in ("AP", "AP SUPINE")
    body = patient.sample(record, supine)
    mu = patient.tissue(ct, body, record)
    beam = acquisition.aim(site, view, body, patient.rng("beam", record["image_id"]))
    normal = acquisition.trace(patient.to_canonical(beam.points, body)(patient.Effects()), beam)
    exposure = acquisition.expose(acquisition.slabs(mu, beam), normal, view)
    chest = Chest(ct, mu.reshape(-1), supine)
    truth = phantom._truth(record)
    for finding in (f for f in findings.RENDER if truth[f] and not phantom._implied(f, truth)):
        for place in findings.plan(record, finding):
            findings.RENDER[finding](chest, **place)
    points = _samples(beam, size)
    voxels = (patient.to_canonical(points, body)(chest.effects)[:, ::-1] / anatomy.SPACING + anatomy.origin()).T
    volumes = {"image": mu} | {name: _volume(chest, name) for name in (*phantom.THICKNESS, *chest.regions)}
    lines = {}
    for name, volume in volumes.items():
        values = ndimage.map_coordinates(volume, voxels, order=1, mode="nearest")
        lines[name] = values.reshape(DEPTHS, size, size).sum(axis=0) * (beam.thickness / DEPTHS)
    noise = patient.rng("noise", record["image_id"])
    return acquisition.develop(acquisition.WATER * lines.pop("image"), exposure, site, noise), lines


def _samples(beam: acquisition.Beam, size: int) -> np.ndarray:
    """Points [DEPTHS * size * size, 3] in mm in the middles of equal cells of a cone beam, from its 8 corners."""
    index = np.indices((DEPTHS, size, size)).reshape(3, -1) + 0.5
    d, r, c = (index / np.array([[DEPTHS], [size], [size]]))[..., None]
    first, last = (
        (1 - r) * ((1 - c) * side[0, 0] + c * side[0, -1]) + r * ((1 - c) * side[-1, 0] + c * side[-1, -1])
        for side in beam.points[[0, -1]]
    )
    return (1 - d) * first + d * last


def _volume(chest: Chest, name: str) -> np.ndarray:
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
        table.writerow(["method", "size_px", "rounds", "images_per_s", "times_plain", "rms_difference", "cpus"])
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
