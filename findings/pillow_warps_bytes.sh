#!/usr/bin/env bash
# Pillow warps, and counts in histograms, single bytes of a 16-bit radiograph.
#
# Pillow 13.0.0; seen 2026-11-29.
# A 16-bit grey PNG opens as I;16. transform and rotate with BILINEAR or BICUBIC take the n-th byte of a row for its
# n-th pixel: even the identity returns values below 256 and loses the right half of the film, without an error
# (filters say "image has wrong mode"). NEAREST and resize are right. histogram and ImageStat count the same bytes.
# Guessed before: correct values, or an error.
# Seen (4,096 pixels between 0 and 4,095, mean 2,047.5):
#   identity, NEAREST   mean 2047.5, as stored: True, the bytes of the left half: False
#   identity, BILINEAR  mean   67.3, as stored: False, the bytes of the left half: True
#   identity, BICUBIC   mean   67.3, as stored: False, the bytes of the left half: True
#   rotate(5, BILINEAR)  largest value 237 of 4095
#   resize, BICUBIC      mean 2047.9
#   ImageStat            mean 67.3, extrema [(0, 255)]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from PIL import Image, ImageStat

stored = np.add.outer(np.arange(64) * 60, np.arange(64) * 5).astype(np.uint16)
Image.fromarray(stored).save("film.png")
film = Image.open("film.png")
film.load()
assert film.mode == "I;16" and (np.asarray(film) == stored).all()
left_bytes = stored.view(np.uint8)[:, :64]

ok = []
for name, filter_, as_bytes in (
    ("NEAREST", Image.Resampling.NEAREST, False),
    ("BILINEAR", Image.Resampling.BILINEAR, True),
    ("BICUBIC", Image.Resampling.BICUBIC, True),
):
    same = np.asarray(film.transform(film.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 0), filter_))
    is_stored, is_bytes = bool((same == stored).all()), bool((same == left_bytes).all())
    print(f"identity, {name:9} mean {same.mean():6.1f}, as stored: {is_stored}, the bytes of the left half: {is_bytes}")
    ok.append((is_stored, is_bytes) == (not as_bytes, as_bytes))

turned = np.asarray(film.rotate(5, Image.Resampling.BILINEAR))
print(f"rotate(5, BILINEAR)  largest value {turned.max()} of {stored.max()}")
smaller = np.asarray(film.resize((32, 32), Image.Resampling.BICUBIC))
print(f"resize, BICUBIC      mean {smaller.mean():.1f}")
statistics = ImageStat.Stat(film)
print(f"ImageStat            mean {statistics.mean[0]:.1f}, extrema {statistics.extrema}")
ok += [turned.max() <= 255, abs(smaller.mean() - stored.mean()) < 1, statistics.extrema == [(0, 255)]]
sys.exit(not all(ok))
PYTHON
