"""Energy is counted in the band of its frequency, and a blur is seen where it is."""

import numpy as np
import pytest
from scipy import ndimage

from chexgen_lib.quality.spectrum import BANDS, band_energy, kept_energy


@pytest.mark.parametrize(("cycles", "band"), [(4, 0), (12, 1), (40, 3), (60, 4)])
def test_a_wave_is_in_its_band(cycles, band):
    wave = np.sin(2 * np.pi * cycles * np.arange(128) / 128) * np.ones((128, 1))
    energy = band_energy(wave[None].astype(np.float32))[0]
    assert energy.argmax() == band and energy[band] > 0.9 * energy.sum()


def test_a_blur_loses_fine_bands_and_equal_images_none():
    images = np.random.default_rng(0).random((6, 128, 128)).astype(np.float32)
    assert np.allclose(kept_energy(images, images)["share"], 1)
    shares = kept_energy(images, ndimage.gaussian_filter(images, (0, 1.5, 1.5)))["share"].to_list()
    assert len(shares) == len(BANDS) and shares == sorted(shares, reverse=True)
    assert shares[0] > 0.8 and shares[-1] < 0.01


def test_the_median_image_says_what_a_few_with_lines_hide():
    images = np.random.default_rng(0).random((9, 64, 64))
    images[0] *= 20  # nearly all of the energy
    others = images.copy()
    others[0] /= 20
    kept = kept_energy(images, others)
    assert kept["share"].max() < 0.1 and np.allclose(kept["median"], 1)


def test_small_images_have_no_fine_bands_and_sizes_must_agree():
    images = np.random.default_rng(0).random((2, 32, 32))
    assert kept_energy(images, images)["band"].to_list() == ["1-8", "8-16"]
    with pytest.raises(ValueError, match="cannot be compared"):
        kept_energy(images, images[:, :16, :16])
    with pytest.raises(ValueError, match="give pairs"):
        kept_energy(images, images[:1])
