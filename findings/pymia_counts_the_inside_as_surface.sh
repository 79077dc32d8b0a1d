#!/usr/bin/env bash
# pymia's surface Dice and 95 % Hausdorff distance of flat masks count every pixel inside as surface.
#
# pymia 0.3.4 beside surface-distance 0.1 (scipy 1.15.3, SimpleITK 2.5.7); seen 2026-12-01.
# pymia makes a two-dimensional mask a slab of one slice, 1.0 thick, whose two faces are surface as well: what the masks
# share is "surface at distance 0". A lung drawn 10 mm too small all around has none of its contour within 2 mm, as
# surface-distance and a comparison of the contours by NumPy say, but scores 0.87. The larger an organ, the better, and
# as the slab is always 1.0 thick, the same masks score otherwise in cm. The Hausdorff distance itself is right. There
# is no warning.
# Guessed before: the contours, as in surface-distance, from which pymia's code comes.
# Seen (a lung of 100 by 200 mm, 0.5 mm a pixel: surface Dice at 2 mm, 95 % and whole Hausdorff distance):
#   10 mm too small  pymia [0.87, 8.14, 10.01]  surface_distance [0.0, 10.0, 10.01]  numpy [0.0, 10.0, 10.01]
#   the same in cm   pymia [0.81, 0.96, 1.0]  surface_distance [0.0, 1.0, 1.0]  numpy [0.0, 1.0, 1.0]
#   10 mm too low    pymia [0.96, 1.12, 10.0]  surface_distance [0.34, 9.5, 10.0]  numpy [0.37, 9.55, 10.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.2.6 scipy==1.15.3 scikit-image==0.25.2 simpleitk==2.5.7
# without h5py, which only storing data needs
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps pymia==0.3.4 surface-distance==0.1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import SimpleITK
import surface_distance
from pymia.evaluation.evaluator import SegmentationEvaluator
from pymia.evaluation.metric import HausdorffDistance, SurfaceDiceOverlap
from scipy.ndimage import binary_erosion, distance_transform_edt

MM = 0.5


def lung(smaller=0.0, lower=0.0):
    """An ellipse of 100 by 200 mm, drawn smaller all around, or lower down, by so many mm."""
    y, x = np.mgrid[:500, :300] * MM
    return ((y - 110 - lower) / (100 - smaller)) ** 2 + ((x - 75) / (50 - smaller)) ** 2 <= 1


def by_pymia(truth, drawn, spacing, tolerance):
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (drawn, truth)]
    for image in images:
        image.SetSpacing((spacing, spacing))
    metrics = [SurfaceDiceOverlap(tolerance, "dice"), HausdorffDistance(95, "95 %"), HausdorffDistance(100, "whole")]
    evaluator = SegmentationEvaluator(metrics, {1: "lung"})
    evaluator.evaluate(*images, "film")
    return [result.value for result in evaluator.results]


def by_surface_distance(truth, drawn, spacing, tolerance):
    found = surface_distance.compute_surface_distances(truth, drawn, (spacing, spacing))
    distances = [surface_distance.compute_robust_hausdorff(found, percent) for percent in (95, 100)]
    return [surface_distance.compute_surface_dice_at_tolerance(found, tolerance), *distances]


def by_numpy(truth, drawn, spacing, tolerance):
    one, other = (mask & ~binary_erosion(mask) for mask in (truth, drawn))
    there, back = (distance_transform_edt(~b)[a] * spacing for a, b in ((one, other), (other, one)))
    within = np.mean(np.r_[there, back] <= tolerance)
    return [within, *(max(np.percentile(there, percent), np.percentile(back, percent)) for percent in (95, 100))]


CASES = {
    "10 mm too small": (lung(smaller=10), MM, 2.0, [[0.87, 8.14, 10.01], [0.0, 10.0, 10.01], [0.0, 10.0, 10.01]]),
    "the same in cm": (lung(smaller=10), MM / 10, 0.2, [[0.81, 0.96, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]),
    "10 mm too low": (lung(lower=10), MM, 2.0, [[0.96, 1.12, 10.0], [0.34, 9.5, 10.0], [0.37, 9.55, 10.0]]),
}
ok = []
for name, (drawn, spacing, tolerance, expected) in CASES.items():
    seen = {}
    for measure in (by_pymia, by_surface_distance, by_numpy):
        seen[measure.__name__[3:]] = [round(float(value), 2) for value in measure(lung(), drawn, spacing, tolerance)]
    print(f"{name:15}  " + "  ".join(f"{package} {values}" for package, values in seen.items()))
    ok.append(list(seen.values()) == expected)
sys.exit(not all(ok))
PYTHON
