"""Other generators get our requests, sampled here or handed in; where one has no images it has no row."""

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.pools.rivals import folders, open_rival, open_rivals, sample_rivals
from chexgen_lib.pools.trial import GeneratorError
from chexgen_lib.rehearsal.weights import pipeline as pipeline_as_released
from chexgen_lib.sampling.baseline import BaselinePipeline, GreyStableDiffusionPipeline
from chexgen_lib.sampling.generators import Parts

REQUESTS = pl.DataFrame({"image_id": ["a", "b", "c"], "prompt": ["Effusion.", "Edema.", "Normal."]})
TWO = Sampling(copies=2, num_inference_steps=2, batch_size=6)


def images(folder, records, size=16):
    """A folder of images whose grey counts them, in the order of the records, with its table."""
    folder.mkdir(parents=True)
    for k in range(len(records)):
        pixels = np.full((size, size), 10 * k, np.uint8)
        pixels[size // 2 :, size // 2 :] = 255
        Image.fromarray(pixels).save(folder / f"{k}.png")
    table = pl.DataFrame({"image": [f"{k}.png" for k in range(len(records))], "image_id": records})
    table.write_csv(folder / "labels.csv")
    return folder


@pytest.fixture
def run(tmp_path):
    """A run's folder with a U-Net, and the parts that it is sampled with."""
    torch.manual_seed(0)
    unet = BaselineUNet.of_size("ci", (4, 4, 4), text_dim=384)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    unet.save_pretrained(tmp_path / "baseline/unet")
    new_autoencoder((8, 8, 8)).save_pretrained(tmp_path / "autoencoder")
    return tmp_path, Parts(str(tmp_path / "autoencoder"), "minilm")


def test_each_is_sampled_for_the_same_requests_or_read(run, tmp_path):
    root, parts = run
    given = images(tmp_path / "given/text", list("ccbbaad")).parent
    rivals = open_rivals({"baseline": None, "given": str(given)}, root, parts)
    assert type(rivals["baseline"]) is BaselinePipeline and rivals["given"] == given
    (root / "pools/left/over").mkdir(parents=True)  # of a generator that is no longer named
    found = sample_rivals(rivals, "text", REQUESTS, root / "pools", TWO, size=8)
    assert found["baseline"].shape == (3, 2, 32, 32)
    assert found["given"][:, :, 0, 0].tolist() == [[40, 50], [20, 30], [0, 10]] and found["given"].shape[2:] == (8, 8)
    assert list(folders(root / "pools")) == ["baseline", "given"] and not (root / "pools/left").exists()
    manifest = pl.read_parquet(root / "pools/given/manifest.parquet")
    assert manifest["image_id"].to_list() == ["a", "b", "c"]
    before = (root / "pools/baseline/samples.npy").stat().st_mtime_ns
    again = sample_rivals(rivals, "text", REQUESTS, root / "pools", TWO, size=8)
    assert np.array_equal(again["baseline"], found["baseline"])
    assert (root / "pools/baseline/samples.npy").stat().st_mtime_ns == before


def test_a_folder_takes_part_where_it_has_images_for_the_pool(run, tmp_path):
    rivals = {"given": images(tmp_path / "given/matched", list("abc")).parent}
    (tmp_path / "pools/given").mkdir(parents=True)
    (tmp_path / "pools/given/samples.npy").touch()  # it had some once
    assert sample_rivals(rivals, "text", REQUESTS, tmp_path / "pools", TWO, 8) == {} == folders(tmp_path / "pools")
    several = pl.DataFrame({"image_id": ["a/0", "a/1"], "record": ["a", "a"], "prompt": ["x", "x"]})
    images(tmp_path / "given/balancing", ["a", "b", "a"])
    found = sample_rivals(rivals, "balancing", several, tmp_path / "pools", Sampling(copies=1), 8)
    assert found["given"][:, 0, 0, 0].tolist() == [0, 20]  # another image for each request of a record


def test_what_is_left_out_of_a_folder_or_stored_in_another_way_is_counted(tmp_path):
    rivals = {"given": images(tmp_path / "given/text", list("abcde")).parent}
    images(tmp_path / "given/text/old", ["a"])
    with pytest.warns(UserWarning) as said:
        sample_rivals(rivals, "text", REQUESTS, tmp_path / "pools", TWO, 8)
    assert [str(w.message).partition("text: ")[2] for w in said] == [
        "5 images of 16 x 16 px: judged at 8 px",
        "2 images that nothing requests are left out",
        "1 images that labels.csv does not name are left out",
    ]


def test_missing_images_are_named_with_their_folder(tmp_path):
    rivals = {"given": images(tmp_path / "given/text", list("ab")).parent}
    with pytest.raises(CohortError, match=r"given/text: the pool lacks 1 images, first of record 'c'"):
        sample_rivals(rivals, "text", REQUESTS, tmp_path / "pools", TWO, 8)


def test_what_cannot_stand_beside_ours_is_refused_before_anything_is_sampled(run, tmp_path):
    root, parts = run
    for name in ("new real", "ChexGen", "test", "2x", ""):
        with pytest.raises(ValueError, match="cannot name an arm"):
            open_rivals({name: None}, root, parts)
    flat = images(tmp_path / "flat", list("abc"))
    with pytest.raises(ValueError, match="flat into folders in it: synthesis, text"):
        open_rivals({"flat": str(flat)}, root, parts)
    with pytest.raises(GeneratorError, match="generators.mine: .*no generator at"):
        open_rivals({"mine": str(tmp_path / "absent")}, root, parts)


def test_the_baseline_of_a_run(run, tmp_path):
    """Trained here, or given."""
    root, parts = run
    with pytest.raises(FileNotFoundError, match="holds no U-Net: run the stage 04_baseline first"):
        open_rival(None, tmp_path / "elsewhere", parts, "baseline.weights")
    assert type(open_rival(None, root, parts, "baseline.weights")) is BaselinePipeline
    published = str(pipeline_as_released(tmp_path / "published"))
    assert type(open_rival(published, root, parts, "baseline.weights")) is GreyStableDiffusionPipeline
