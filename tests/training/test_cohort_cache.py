"""A cohort's latent caches hold the images of their purpose and split, and are made again only if something changed."""

import multiprocessing
import os
import signal

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from chexgen_lib import storage
from chexgen_lib.cohort import build, layout, select
from chexgen_lib.descriptions import grammar
from chexgen_lib.images import from_uint8
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import encode, load_autoencoder
from chexgen_lib.models.text import count_tokens, load_tokenizer
from chexgen_lib.sources.files import with_stamps
from chexgen_lib.training import cohort_cache
from chexgen_lib.training.cohort_cache import build_with_latents, descriptions, encode_rows, select_records
from chexgen_lib.training.latent_cache import CacheError, LatentCache
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


def test_a_cache_of_no_images_is_refused(arguments, tmp_path):
    rows = np.zeros(0, np.int64)
    with pytest.raises(CacheError, match="alignment_val: no image to encode"):
        encode_rows(tmp_path / "alignment_val", tmp_path, rows, 32, (arguments["autoencoder"], "minilm"))


def test_caches_hold_the_images_of_their_purpose(arguments, tmp_path):
    folder = kept(build_with_latents, tmp_path / "cohort", **arguments)
    sizes = {"pretraining_train": 4, "pretraining_val": 2, "alignment_train": 2, "alignment_val": 1}
    pairs = {name: LatentCache.load(folder / name) for name in sizes}
    assert {name: len(cache) for name, cache in pairs.items()} == sizes
    images = layout.load_images(folder, 32, [3, 5])
    mean, _ = encode(arguments["autoencoder"], from_uint8(images))
    np.testing.assert_allclose(pairs["alignment_train"].mean[:].float(), mean, atol=1e-2)


def test_stage_one_reads_descriptions_and_stage_two_what_it_was_selected_with(arguments, tmp_path, monkeypatch):
    read, of = [], LatentCache.of
    monkeypatch.setattr(
        LatentCache, "of", lambda images, texts, *models: read.append(texts) or of(images, texts, *models)
    )
    folder = kept(build_with_latents, tmp_path / "cohort", **arguments)
    described = grammar.prompt(layout.load(folder)).to_list()
    first = [[described[k] for k in rows] for rows in ([0, 2, 3, 5], [1, 4])]
    assert read == [*first, ["Prompt 3.", "Prompt 5."], ["Prompt 4."]]


def test_a_description_longer_than_an_encoder_reads_gives_way_to_the_prompt(arguments, tmp_path, monkeypatch):
    """A rendered image can show more than the record that was selected says."""
    folder = kept(build_with_latents, tmp_path / "cohort", **arguments)
    full = grammar.prompt(layout.load(folder))
    lengths = count_tokens(load_tokenizer(), full.to_list())
    limit = sorted(lengths)[2]
    monkeypatch.setattr(cohort_cache, "MAX_TOKENS", limit)
    read = descriptions(folder, load_tokenizer(), np.arange(6)).to_list()
    assert read == [t if n <= limit else f"Prompt {k}." for k, (t, n) in enumerate(zip(full, lengths, strict=True))]
    assert 0 < sum(text.startswith("Prompt") for text in read) < 6


def test_an_interrupted_cohort_keeps_its_images(arguments, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(LatentCache, "of", stop)
        with pytest.raises(KeyboardInterrupt):
            kept(build_with_latents, tmp_path / "cohort", **arguments)
    monkeypatch.setattr(build, "read_image", stop)  # nothing is read a second time
    folder = kept(build_with_latents, tmp_path / "cohort", **arguments)
    assert len(layout.load(folder)) == 6 and len(LatentCache.load(folder / "alignment_val")) == 1


def test_a_replaced_image_is_read_again(arguments, tmp_path):
    names, root = arguments.pop("records"), arguments["image_root"]

    def pixels():
        records = with_stamps(names.lazy(), root)
        folder = kept(build_with_latents, tmp_path / "cohort", records=records, **arguments)
        return layout.load_images(folder, 32)

    before = pixels()
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))).save(tmp_path / "2.png")
    assert (pixels() != before).any(axis=(1, 2)).tolist() == [False, False, True, False, False, False]


def test_no_more_than_a_block_of_whole_records_is_in_memory(tmp_path, monkeypatch):
    """Whole: with the report. From 120 records on the disk to the images of those chosen, 20 at a time."""
    for module in (storage, select, build):
        monkeypatch.setattr(module, "ROWS", 20)
    monkeypatch.setattr(build, "CHUNK", 10)
    root, collect, seen = tmp_path / "files", pl.LazyFrame.collect, []
    root.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(root / "0.png")
    table = curated_records().with_columns(image=pl.lit("0.png"), report=pl.lit("Small effusion."))
    table.write_parquet(tmp_path / "records.parquet")

    def watched(*arguments, **options):
        frame = collect(*arguments, **options)
        seen.append(len(frame) if "report" in frame.columns else 0)
        return frame

    monkeypatch.setattr(pl.LazyFrame, "collect", watched)
    choice = select.Selection("stage1", ["nih"], {"train": None, "val": None}, natural=True)
    how = dict(selections=[choice], text_encoder="minilm", max_tokens=120, seed=0, with_images=True)
    chosen = kept(select_records, tmp_path / "selection", records=tmp_path / "records.parquet", **how)
    records = with_stamps(pl.scan_parquet(chosen / "records.parquet"), root)
    kept(build.build, tmp_path / "images", {"workers": 1}, records=records, resolutions=[8], image_root=str(root))
    assert max(seen) == 20 and sum(seen) > 5 * 100
    monkeypatch.undo()
    built = layout.load(tmp_path / "images")
    assert len(built) == len(layout.load_images(tmp_path / "images", 8)) == (table["split"] != "test").sum() > 100
    assert built["image_id"].equals(pl.read_parquet(chosen / "records.parquet")["image_id"])


def test_images_that_nobody_reads_are_not_looked_for():
    records = curated_records(2)
    assert with_stamps(records, None) is records


def build_until_killed(moment, folder, arguments):
    """SIGKILL to this process when so many files have taken their place and another is about to."""
    moves, replace = [], os.replace

    def stop(*places):
        moves.append(places)
        if len(moves) > moment:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*places)

    os.replace, build.CHUNK = stop, 2
    kept(build_with_latents, folder, {"workers": 1}, **arguments)


@pytest.mark.parametrize("moment", [1, 7])  # a chunk of images, a shard of pairs
def test_a_killed_cohort_ends_with_the_same_bytes(arguments, tmp_path, monkeypatch, moment):
    """Nothing is lost, nothing is there twice."""
    monkeypatch.setattr(build, "CHUNK", 2)
    arguments["autoencoder"] = load_autoencoder("shipped", torch.device("cpu"))
    whole = kept(build_with_latents, tmp_path / "whole", {"workers": 1}, **arguments)
    call = moment, tmp_path / "cut", arguments
    process = multiprocessing.get_context("spawn").Process(target=build_until_killed, args=call)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(list(tmp_path.glob(".cut.unfinished-*/*"))) > 0
    cut = kept(build_with_latents, tmp_path / "cut", {"workers": 1}, **arguments)
    assert contents(cut) == contents(whole) and len(contents(whole)) == 11


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
