"""Every record has an image or a reason; an interrupted build goes on, and a finished one is not made again."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.cohort.build import _read, build
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.cohort.select import Selection, select
from chexgen_lib.images import read_image, resize, to_uint8
from chexgen_lib.kept import kept
from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS
from tests.builders import curated_records


def choose(table, with_images=False):
    selection = Selection("stage1", ["nih"], {"train": 6})
    return pl.concat(select(table, [selection], lambda texts: [1] * len(texts), 2, with_images=with_images))


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return curated_records()


def test_rendered_cohort(table, tmp_path):
    chosen = choose(table).head(6)
    build(tmp_path, chosen, [32, 64], workers=0)
    built = cohort.load(tmp_path)
    assert len(built) == 6 and pl.read_csv(tmp_path / "rejects.csv").is_empty()
    images = cohort.load_images(tmp_path, 64)
    assert images.shape == (6, 64, 64) and images.std() > 20
    small = cohort.load_images(tmp_path, 32, [2])
    assert np.array_equal(small[0], to_uint8(resize(images[2] / np.float32(255), 32)))
    lungs = cohort.load_anatomy_masks(tmp_path, [0])[0, 0]
    assert 0.05 < lungs.mean() < 0.6
    assert built[FINDINGS[1:]].null_count().sum_horizontal().item() == 0
    assert built["image"].str.starts_with("phantom:").all()


def test_an_interrupted_build_goes_on_where_it_was(table, tmp_path, monkeypatch):
    chosen = choose(table).head(6)
    monkeypatch.setattr("chexgen_lib.cohort.build.CHUNK", 2)
    arguments = dict(records=chosen, resolutions=[32], uncounted={"workers": 0})
    whole = cohort.load(kept(build, tmp_path / "whole", **arguments))
    render, calls = phantom.render, []

    def stop_at_fourth(record, size):
        calls.append(record["image_id"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render(record, size)

    with monkeypatch.context() as m:
        m.setattr(phantom, "render", stop_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            kept(build, tmp_path / "cut", **arguments)
        again = cohort.load(kept(build, tmp_path / "cut", **arguments))
        assert calls == [chosen["image_id"][i] for i in (0, 1, 2, 3, 2, 3, 4, 5)]  # the first chunk was kept
        kept(build, tmp_path / "cut", **arguments)
        assert len(calls) == 8  # a finished cohort is not rendered again
    assert again.equals(whole)
    names = {"cohort.parquet", "images_32.npy", "masks.npz", "rejects.csv", "remarks.csv", "kept.json"}
    assert {path.name for path in (tmp_path / "cut").iterdir()} == names
    for name in ("images_32.npy", "masks.npz"):
        assert (tmp_path / "cut" / name).stat().st_size == (tmp_path / "whole" / name).stat().st_size


def test_unreadable_images_are_rejects_with_their_reason(tmp_path, table):
    chosen = choose(table, with_images=True).head(4)
    rng = np.random.default_rng(0)
    names = chosen["image"].to_list()
    for name in names[:2]:
        Image.fromarray(rng.integers(0, 255, (50, 40), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / names[2]).write_bytes(b"")
    (tmp_path / "out").mkdir()
    build(tmp_path / "out", chosen, [32], image_root=str(tmp_path))
    built, rejects = cohort.load(tmp_path / "out"), pl.read_csv(tmp_path / "out/rejects.csv")
    assert built["image"].to_list() == names[:2] and len(cohort.load_images(tmp_path / "out", 32)) == 2
    assert rejects["image_id"].to_list() == chosen["image_id"].to_list()[2:]
    assert "0 bytes" in rejects["reason"][0] and "no such file" in rejects["reason"][1]
    expected = to_uint8(resize(read_image(tmp_path / names[0]), 32))
    assert np.array_equal(cohort.load_images(tmp_path / "out", 32)[0], expected)
    assert built["Effusion"].to_list() == chosen["Effusion"].to_list()[:2]


def test_images_that_look_wrong_are_listed(tmp_path, table, capsys):
    chosen = choose(table, with_images=True).head(3).with_columns(view=pl.lit("PA"))
    columns = np.exp(-((np.linspace(-0.5, 0.5, 64) ** 2) / 0.02))
    film = np.tile(50 + 180 * columns, (64, 1))
    for name, pixels in zip(chosen["image"], (film, 255 - film, 100 + film / 100), strict=True):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "out").mkdir()
    build(tmp_path / "out", chosen, [32], image_root=str(tmp_path))
    assert len(cohort.load(tmp_path / "out")) == 3
    remarks = pl.read_csv(tmp_path / "out/remarks.csv")
    assert remarks["image_id"].to_list() == chosen["image_id"].to_list()[1:]
    assert "looks like a negative" in remarks["remark"][0] and "nearly flat" in remarks["remark"][1]
    assert f"2 images to look at, first {remarks['image_id'][0]}" in capsys.readouterr().out


def test_stored_values_of_a_source_need_their_header(tmp_path, table):
    chosen = choose(table, with_images=True).head(1)
    chosen = chosen.with_columns(source=pl.lit("bimcv_covid"))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / chosen["image"][0])
    found = _read(chosen.to_dicts(), 32, tmp_path)
    assert len(found["images"]) == 0 and "nothing tells whether they are a negative" in found["reasons"][0]


def test_no_records_make_no_cohort(tmp_path, table):
    with pytest.raises(CohortError, match="no record to make an image of"):
        build(tmp_path, table.head(0), [32])
