"""A cohort's latent caches hold the images of their purpose and split, and are made again only if something changed."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort import build, layout
from chexgen_lib.images import from_uint8
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import encode, load_autoencoder
from chexgen_lib.sources.files import with_stamps
from chexgen_lib.training.cohort_cache import build_with_latents
from chexgen_lib.training.latent_cache import LatentCache
from tests.builders import curated_records


@pytest.fixture
def arguments(tmp_path):
    """Six real images of stage I, of which the last three also serve stage II; two are for validation."""
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / f"{k}.png")
    records = curated_records(6).with_columns(
        prompt=pl.Series([f"Prompt {k}." for k in range(6)]),
        patient_id=pl.col("image_id"),
        split=pl.Series(["train", "val", "train"] * 2),
        stage1=pl.lit(True),
        stage2=pl.Series([False] * 3 + [True] * 3),
        **dict.fromkeys(("external", "few_shot", "annotated"), pl.lit(False)),
    )
    return dict(
        records=records,
        resolutions={"pretraining": 16, "alignment": 32},
        autoencoder=load_autoencoder("shipped"),
        text_encoder="minilm",
        image_root=str(tmp_path),
    )


def test_caches_hold_the_images_of_their_purpose(arguments, tmp_path):
    folder = kept(build_with_latents, tmp_path / "cohort", **arguments)
    sizes = {"pretraining_train": 4, "pretraining_val": 2, "alignment_train": 2, "alignment_val": 1}
    pairs = {name: LatentCache.load(folder / f"{name}.safetensors") for name in sizes}
    assert {name: len(cache) for name, cache in pairs.items()} == sizes
    images = layout.load_images(folder, 32, [3, 5])
    mean, _ = encode(arguments["autoencoder"], from_uint8(images))
    np.testing.assert_allclose(pairs["alignment_train"].mean.float(), mean, atol=1e-2)


def test_an_interrupted_cohort_keeps_its_images(arguments, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(LatentCache, "of", stop)
        with pytest.raises(KeyboardInterrupt):
            kept(build_with_latents, tmp_path / "cohort", **arguments)
    monkeypatch.setattr(build, "read_image", stop)  # nothing is read a second time
    folder = kept(build_with_latents, tmp_path / "cohort", **arguments)
    assert len(layout.load(folder)) == 6 and len(LatentCache.load(folder / "alignment_val.safetensors")) == 1


def test_a_replaced_image_is_read_again(arguments, tmp_path):
    names, root = arguments.pop("records"), arguments["image_root"]

    def pixels():
        folder = kept(build_with_latents, tmp_path / "cohort", records=with_stamps(names, root), **arguments)
        return layout.load_images(folder, 32)

    before = pixels()
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))).save(tmp_path / "2.png")
    assert (pixels() != before).any(axis=(1, 2)).tolist() == [False, False, True, False, False, False]


def test_images_that_nobody_reads_are_not_looked_for():
    records = curated_records(2)
    assert with_stamps(records, None) is records
