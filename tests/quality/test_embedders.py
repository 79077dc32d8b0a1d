"""Embedders: deterministic, documented sizes, and a clear word when weights are not there."""

import time

import numpy as np
import pytest
import torch
import torchxrayvision as xrv
from scipy import stats

from chexgen_lib.images import ImageError
from chexgen_lib.quality import embedders as e
from chexgen_lib.records import FINDINGS


def smooth(n, size=64, seed=0):
    x = np.random.default_rng(seed).random((n, size // 8, size // 8))
    return np.repeat(np.repeat(x, 8, 1), 8, 2).astype(np.float32)


def test_radiomics_is_standardised_by_real_images_and_deterministic():
    real = smooth(40)
    embed = e.RadiomicsEmbedder(real)
    features = embed(real)
    assert features.shape == (40, embed.dim) and features.dtype == np.float32
    varying = features.std(0) > 0
    assert varying.sum() > 30  # blocky images have no detail in three of the sub-bands
    np.testing.assert_allclose(features[:, varying].mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features[:, varying].std(0), 1, atol=1e-3)
    np.testing.assert_array_equal(embed(real[3:5]), features[3:5])  # one image does not depend on its batch


def test_radiomics_sees_texture_and_brightness():
    embed = e.RadiomicsEmbedder(smooth(40))
    x = smooth(5, seed=1)
    noisy = np.clip(x + np.random.default_rng(0).normal(0, 0.1, x.shape), 0, 1).astype(np.float32)
    assert np.abs(embed(noisy) - embed(x)).max() > 3
    assert np.abs(embed(x * 0.8) - embed(x)).max() > 1


def test_first_order_equals_scipy():
    x = np.random.default_rng(0).random((3, 20, 20)).astype(np.float32) ** 2
    found = e.first_order(x)
    for row, image in zip(found, x, strict=True):
        flat = image.ravel().astype(np.float64)
        expected = [flat.mean(), flat.std(), stats.skew(flat), stats.kurtosis(flat, fisher=False)]
        np.testing.assert_allclose(row[:4], expected, rtol=1e-5)
        assert row[6] == pytest.approx(np.median(flat), abs=0.01)
        assert row[9] == pytest.approx(np.sqrt((flat**2).mean()), rel=1e-5)


def test_run_lengths_by_hand():
    embed = e.RadiomicsEmbedder(smooth(3))
    q = np.zeros((4, 4), np.uint8)
    q[:, 2:] = 1  # rows: 8 runs of length 2; columns: 4 runs of length 4
    short, long, percentage, grey, length = embed._runs(q)
    assert (short, long) == pytest.approx(((1 / 4 + 1 / 16) / 2, (4 + 16) / 2))
    assert (percentage, grey, length) == pytest.approx(((8 / 16 + 4 / 16) / 2, 0.5, 1.0))


def test_radiomics_is_fast_enough():
    embed = e.RadiomicsEmbedder(smooth(5, 128))
    x = smooth(60, 128)
    start = time.process_time()
    embed(x)
    assert 60 / (time.process_time() - start) > 50  # 100 to 250 images/s on an idle core


def release(folder, variant="all"):
    """Where a release of torchxrayvision is looked for."""
    return folder / xrv.models.model_urls[variant]["weights_url"].rsplit("/", 1)[1]


@pytest.fixture(scope="module")
def net():
    return xrv.models.DenseNet(num_classes=18)


def test_xrv_reads_a_release_without_running_its_pickle(net, tmp_path):
    for variant in ("all", "mimic_ch"):  # the releases have torch's format of before 2020
        torch.save(net, release(tmp_path, variant), _use_new_zipfile_serialization=False)
    x = smooth(2)
    embed = e.XrvEmbedder("all", tmp_path)
    with torch.inference_mode():
        expected = net.eval().features2(embed._input(x)).numpy()
    np.testing.assert_allclose(embed(x), expected, atol=1e-5)
    scores = e.XrvEmbedder("mimic_ch", tmp_path).predict(x)
    unknown = {f for f, known in zip(FINDINGS, np.isfinite(scores).all(0), strict=True) if not known}
    assert scores.shape == (2, 14) and unknown == {"No Finding", "Pleural Other", "Support Devices"}


def test_xrv_reads_a_release_that_was_saved_again(net, tmp_path):
    torch.save(net, tmp_path / "again.pt")
    found, expected = e.xrv_state(tmp_path / "again.pt"), net.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("zipped", [False, True], ids=["as released", "saved again"])
def test_xrv_refuses_a_pickle_that_is_something_else(tmp_path, capsys, zipped):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    for content in (Evil(), {"weight": torch.zeros(2)}):
        torch.save(content, release(tmp_path), _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match="(?i)weights.only"):
            e.xrv_state(release(tmp_path))
    assert "ran" not in capsys.readouterr().out


def test_xrv_refuses_a_release_that_is_cut_off(net, tmp_path):
    torch.save(net, release(tmp_path), _use_new_zipfile_serialization=False)
    whole = release(tmp_path).read_bytes()
    for length in (0, 1000, len(whole) // 2, len(whole) - 1):
        release(tmp_path).write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is cut off"):
            e.xrv_state(release(tmp_path))


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(e.WeightsMissing, match="classifier,radiomics"):
        e.XrvEmbedder("all", tmp_path)
    with pytest.raises(e.WeightsMissing, match="classifier,radiomics"):
        e.ClipEmbedder(tmp_path)
    with pytest.raises(ValueError, match="unknown"):
        e.XrvEmbedder("nonsense", tmp_path)


def test_clip_with_tiny_weights(tmp_path):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    net = CLIPVisionModelWithProjection(CLIPVisionConfig(**size, image_size=28, patch_size=14, projection_dim=768))
    net.save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    features = e.ClipEmbedder(tmp_path)(smooth(3))
    assert features.shape == (3, 768) and features.dtype == np.float32


def test_make_by_name():
    made = e.make(["radiomics"], reference=smooth(4))
    assert [m.name for m in made] == ["radiomics"]
    with pytest.raises(ValueError, match="unknown embedders"):
        e.make(["inception"])
    with pytest.raises(ValueError, match="need a classifier"):
        e.make(["classifier"])


def test_uint8_is_refused():
    with pytest.raises(ImageError, match="uint8"):
        e.RadiomicsEmbedder(np.zeros((3, 16, 16), np.uint8))
