#!/usr/bin/env bash
# JPEG XL at distance 0, which stands for lossless, changes a radiograph when imagecodecs or tifffile write it.
#
# imagecodecs 2026.3.6, tifffile 2026.3.3; seen 2026-12-01.
# In JPEG XL a distance of 0 is the lossless mode (cjxl -d 0), and quality 100 is its other name. In imagecodecs, and
# in TIFF files through tifffile, either of them turns off the default, which is lossless: 72 % of the pixels of a film
# of 12 bits come back changed, by up to 11 of 4,095, and 93 % of one of 16 bits, by up to 59 of 65,535. Whoever asks
# for nothing, or for level 101, gets an exact film; whoever asks for the best one does not. There is no warning.
# Guessed before: exact at distance 0 and at level 100.
# Seen (pixels that come back changed, largest difference):
#   nothing asked  12 bits, imagecodecs:   0%,  0  12 bits, tifffile:   0%,  0
#   nothing asked  16 bits, imagecodecs:   0%,  0  16 bits, tifffile:   0%,  0
#   lossless=True  12 bits, imagecodecs:   0%,  0  12 bits, tifffile:   0%,  0
#   lossless=True  16 bits, imagecodecs:   0%,  0  16 bits, tifffile:   0%,  0
#   level=101      12 bits, imagecodecs:   0%,  0  12 bits, tifffile:   0%,  0
#   level=101      16 bits, imagecodecs:   0%,  0  16 bits, tifffile:   0%,  0
#   distance=0     12 bits, imagecodecs:  72%, 11  12 bits, tifffile:  72%, 11
#   distance=0     16 bits, imagecodecs:  93%, 59  16 bits, tifffile:  93%, 59
#   level=100      12 bits, imagecodecs:  72%, 11  12 bits, tifffile:  72%, 11
#   level=100      16 bits, imagecodecs:  93%, 59  16 bits, tifffile:  93%, 59
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check imagecodecs==2026.3.6 tifffile==2026.3.3 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import imagecodecs
import numpy as np
import tifffile


def film(bits):
    """Smooth structures with noise over all values of so many bits."""
    y, x = np.mgrid[:256, :320]
    light = np.sin(x / 30) + np.cos(y / 40) + 0.1 * np.random.default_rng(0).normal(size=y.shape)
    return np.round((light - light.min()) / np.ptp(light) * (2**bits - 1)).astype(np.uint16)


def by_imagecodecs(pixels, **options):
    return imagecodecs.jpegxl_decode(imagecodecs.jpegxl_encode(pixels, **options))


def by_tifffile(pixels, **options):
    tifffile.imwrite("film.tif", pixels, compression="jpegxl", compressionargs=options)
    return tifffile.imread("film.tif")


ok = []
for name, exact, options in (
    ("nothing asked", True, {}),
    ("lossless=True", True, {"lossless": True}),
    ("level=101", True, {"level": 101}),
    ("distance=0", False, {"distance": 0}),
    ("level=100", False, {"level": 100}),
):
    for bits in (12, 16):
        line = f"{name:13}"
        for write in (by_imagecodecs, by_tifffile):
            difference = np.abs(write(film(bits), **options).astype(int) - film(bits))
            changed, largest = (difference > 0).mean(), int(difference.max())
            line += f"  {bits} bits, {write.__name__[3:]}: {changed:4.0%}, {largest:2}"
            ok.append(largest == 0 if exact else changed > 0.5 and largest > 2)
        print(line)
sys.exit(not all(ok))
PYTHON
