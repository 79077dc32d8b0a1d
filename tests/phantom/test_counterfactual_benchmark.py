"""The benchmark of pairs: the same on every machine, every kind in it, and strict about what is handed in."""

import json
from collections import Counter

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.descriptions.changes import states
from chexgen_lib.images import ImageError
from chexgen_lib.phantom.counterfactual import counterfactuals
from chexgen_lib.phantom.counterfactual_benchmark import KINDS, PAIRS, benchmark, read_edits, table, write
from chexgen_lib.storage import digest

SIZE = 32
PUBLISHED = "1296ba195c6b24a0dc46e8f8c965c52427cf4bfb928c2313fe18f2f0e14acfdc"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(benchmark(2), tmp_path_factory.mktemp("benchmark") / "out", SIZE, workers=0)


def test_the_benchmark_is_the_published_one():
    """Results on it can be compared only while this does not change."""
    assert digest([[pair.name, pair.record, pair.change] for pair in benchmark()]) == PUBLISHED
    assert [p.record for p in benchmark(5)] == [p.record for p in benchmark(9)[:5]]
    assert benchmark(2, seed=1)[0].record != benchmark(2)[0].record


def test_every_kind_of_change_is_as_frequent_as_the_others():
    pairs = benchmark()
    counts = Counter((pair.attribute, next(iter(pair.change.values())) == 0) for pair in pairs)
    assert len(pairs) == PAIRS and len(counts) == len(KINDS) and max(counts.values()) - min(counts.values()) <= 1
    assert len({pair.record["patient_id"] for pair in pairs}) == PAIRS


def test_a_pair_changes_what_it_is_about_and_what_follows():
    follow = {"No Finding", "Lung Opacity"}
    for pair in benchmark(10 * len(KINDS)):
        before, after = states(pair.record), states(pair.target)
        moved = {finding for finding in before if before[finding] != after[finding]}
        if pair.attribute == "No Finding":
            assert after["No Finding"] and not before["No Finding"]
        elif pair.attribute in before:
            assert moved - follow == {pair.attribute} - follow and pair.attribute in moved
        else:
            assert not moved


def test_records_are_rendered_as_they_say():
    pairs = [pair for pair in benchmark(len(KINDS)) if pair.attribute in ("Effusion", "device")][:2]
    for pair, films in zip(pairs, counterfactuals([(p.record, p.change) for p in pairs], 64, workers=0), strict=True):
        assert films.before.truth == states(pair.record) and films.after.truth == states(pair.target)
        assert films.region.any()


def test_films_and_labels_go_out_and_edits_come_back(folder):
    listed = pl.read_csv(folder / "labels.csv", infer_schema=False)
    assert listed["pair"].to_list() == ["0000", "0001"] and len(list((folder / "films").iterdir())) == 2
    assert json.loads(listed["change"][0]) == benchmark(1)[0].change
    assert listed["prompt"].to_list() != listed["source_prompt"].to_list()
    edits = read_edits(folder, benchmark(2), SIZE)  # an editor that changes nothing
    films = counterfactuals([(p.record, p.change) for p in benchmark(2)], SIZE, workers=0)
    assert np.abs(edits - np.stack([both.before.image for both in films])).max() < 1 / 255
    backwards = read_edits(folder, benchmark(2)[::-1], SIZE)
    assert np.array_equal(backwards, edits[::-1]), "films go by the name of their pair"
    assert table(benchmark(2))["site"].to_list() == [pair.record["site"] for pair in benchmark(2)]


def edited(folder, rows=("0000,a.png", "0001,c.png"), header="pair,image", **image):
    """A folder of edits in which a.png and c.png are films, or what `image` says."""
    values = image.get("values", np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE))
    for name in ("a.png", "c.png"):
        Image.fromarray(values).save(folder / name)
    (folder / "labels.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder


@pytest.mark.parametrize("names", [("0", "1"), ("0.0", "1.0")])
def test_pairs_of_a_table_whose_names_became_numbers(names, tmp_path):
    rows = [f"{name},{file}" for name, file in zip(names, ("a.png", "c.png"), strict=True)]
    assert read_edits(edited(tmp_path, rows=rows), benchmark(2), SIZE).shape == (2, SIZE, SIZE)
    with pytest.raises(ImageError, match="pair '0001' is there twice"):
        read_edits(edited(tmp_path, rows=[*rows, "0001,d.png"]), benchmark(2), SIZE)


def test_edits_of_the_first_pairs_alone_are_told_how_to_be_scored(tmp_path):
    with pytest.raises(ImageError, match=r"the first is '0002': edit every one, or score the first 2 alone .--pairs 2"):
        read_edits(edited(tmp_path), benchmark(3), SIZE)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(header="pair,file"), "no column image"),
        (dict(rows=["0000,a.png"]), "1 pairs have no film, the first is '0001'"),
        (dict(rows=["0000,a.png", "0000,a.png"]), "pair '0000' is there twice"),
        (dict(rows=["0000,a.png", "0001,b.png"]), "b.png: no such file"),
        (dict(rows=["0000,a.png", "0001,a.png"]), "the image of pair '0000' is 'a.png', as another's: each pair"),
        (dict(rows=["0000,a.png", "0001,"]), "the image of pair '0001' is missing"),
        (dict(values=np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)), "16 x 16 pixels and the film 32 x 32"),
        (dict(values=np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)), "is in colour"),
        (dict(values=np.zeros((SIZE, SIZE), np.uint8)), "not all equal"),
        (dict(values=np.arange(1024, dtype=np.uint16).reshape(32, 32)), "8 bits"),
    ],
)
def test_edits_that_cannot_be_scored_are_named(given, words, tmp_path):
    with pytest.raises(ImageError, match=words):
        read_edits(edited(tmp_path, **given), benchmark(2), SIZE)


def test_a_folder_without_its_table_and_a_benchmark_of_nothing_are_refused(tmp_path):
    with pytest.raises(ImageError, match="labels.csv does not exist"):
        read_edits(tmp_path, benchmark(2), SIZE)
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(ImageError, match="labels.csv: the file is empty.*save it as CSV with the columns pair"):
        read_edits(tmp_path, benchmark(2), SIZE)
    with pytest.raises(ValueError, match="0 pairs"):
        benchmark(0)
