"""`chexgen edit` and `chexgen counterfactuals`: what goes in and out, and what is refused."""

import copy
import json
import re

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cli import edit as edit_command
from chexgen_lib.cli import main as cli
from chexgen_lib.diffusion.schedulers import flow_dpm_solver_scheduler
from chexgen_lib.images import read_image, write_png
from chexgen_lib.phantom.counterfactual_benchmark import benchmark, read_edits
from chexgen_lib.sampling.pipeline import ChexGenPipeline

SIZE = 32


@pytest.fixture
def weights(pipeline, monkeypatch):
    """The tiny pipeline as a flow, in place of any weights."""
    transformer = copy.deepcopy(pipeline.transformer)
    transformer.register_to_config(objective="rectified_flow")
    parts = {**pipeline.components, "transformer": transformer, "scheduler": flow_dpm_solver_scheduler()}
    monkeypatch.setattr(edit_command, "load_pipeline", lambda name: ChexGenPipeline(**parts))


def films(folder, *rows, header="pair,image,change,view,age,sex,Effusion"):
    write_png(folder / "a.png", np.random.default_rng(0).uniform(0.2, 0.8, (SIZE, SIZE)).astype(np.float32))
    (folder / "films.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder / "films.csv"


WIDER = "pair,image,change,view,age,sex,Effusion,"
OLDER = '7,a.png,"{""age"": 80}",LATERAL,55,F,1'


def test_films_are_edited_and_listed(tmp_path, weights):
    table = films(tmp_path, OLDER, '8,a.png,"{""Effusion"": 0}",LATERAL,55,F,1')
    assert cli.main(["edit", str(table), "--out", str(tmp_path / "out"), "--steps", "2", "--guidance", "3"]) == 0
    listed = pl.read_csv(tmp_path / "out/labels.csv", infer_schema=False)
    assert listed.rows() == [("7", "7.png", "true"), ("8", "8.png", "true")]
    before, *after = (read_image(path) for path in (tmp_path / "a.png", tmp_path / "out/7.png", tmp_path / "out/8.png"))
    assert not np.array_equal(before, after[0]) and not np.array_equal(*after)


def test_an_interrupted_call_goes_on_with_the_next_film(tmp_path, weights, monkeypatch):
    table, edit, made = films(tmp_path, OLDER, OLDER.replace("7", "8", 1)), ChexGenPipeline.edit, []

    def counted(self, *arguments, **settings):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(arguments)
        return edit(self, *arguments, **settings)

    command = ["edit", str(table), "--out", str(tmp_path / "out"), "--steps", "1"]
    monkeypatch.setattr(ChexGenPipeline, "edit", counted)
    assert cli.main(command) == 130 and not (tmp_path / "out/labels.csv").exists()
    before = (tmp_path / "out/7.png").stat().st_mtime_ns
    monkeypatch.setattr(ChexGenPipeline, "edit", edit)
    assert cli.main(command) == 0 and (tmp_path / "out/7.png").stat().st_mtime_ns == before
    assert (tmp_path / "out/7.png").read_bytes() != (tmp_path / "out/8.png").read_bytes()
    first = read_image(tmp_path / "out/7.png")
    assert cli.main([*command[:-1], "2"]) == 0  # with other settings all are made again
    assert not np.array_equal(read_image(tmp_path / "out/7.png"), first)


@pytest.mark.parametrize(
    ("pair", "out", "words"),
    [
        ("a", ".", "a.png is read here, and would be replaced: name another folder"),
        ("other", ".", "other.png is no image of this command's"),
    ],
)
def test_films_that_are_read_and_others_are_never_replaced(tmp_path, pair, out, words, capsys):
    table = films(tmp_path, OLDER.replace("7", pair, 1))
    write_png(tmp_path / "other.png", np.full((SIZE, SIZE), 0.5, np.float32))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.main(["edit", str(table), "--out", str(tmp_path / out)]) == 2
    assert words in capsys.readouterr().err
    table.rename(tmp_path / "labels.csv")
    assert cli.main(["edit", str(tmp_path / "labels.csv"), "--out", str(tmp_path / out)]) == 2
    assert {path.name.replace("labels", "films"): path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_that_somebody_else_wrote_is_never_replaced(tmp_path, capsys):
    table = films(tmp_path, OLDER)
    (tmp_path / "labels.csv").write_text("image,image_id,radiologist\na.png,1,2\n")
    assert cli.main(["edit", str(table), "--out", str(tmp_path)]) == 2
    assert "labels.csv is no table of this command's" in capsys.readouterr().err
    assert (tmp_path / "labels.csv").read_text().startswith("image,image_id,radiologist")


def test_a_model_that_cannot_edit_is_refused_before_anything_is_removed(tmp_path, weights, capsys, monkeypatch):
    table = films(tmp_path, OLDER)
    out = ["--out", str(tmp_path / "out"), "--steps", "2"]
    assert cli.main(["edit", str(table), *out]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(ChexGenPipeline, "distilled_steps", 4)
    assert cli.main(["edit", str(table), *out, "--weights", "few"]) == 2
    assert "--weights few: the steps of a distilled model cannot be inverted" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("weight", ["0", "-1", "nan"])
def test_a_guidance_that_edits_nothing_is_refused(tmp_path, weight, capsys):
    with pytest.raises(SystemExit):
        cli.main(["edit", str(films(tmp_path, OLDER)), "--out", str(tmp_path / "out"), f"--guidance={weight}"])
    assert "must be a finite number above 0" in capsys.readouterr().err


def test_columns_that_are_not_read_are_said(tmp_path):
    table = films(tmp_path, OLDER + ",1,3", header=WIDER + "Efusion,guidence")
    with pytest.warns(UserWarning, match="films.csv: not used: Efusion, guidence; known columns: pair, image"):
        edit_command.read_rows(table)


def test_a_row_can_have_a_guidance_of_its_own(tmp_path, weights):
    rows = [OLDER + ",", OLDER.replace("7,", "8,", 1) + ",6"]
    table = films(tmp_path, *rows, header="pair,image,change,view,age,sex,Effusion,guidance")
    assert cli.main(["edit", str(table), "--out", str(tmp_path / "out"), "--steps", "2"]) == 0
    before, default, own = (read_image(tmp_path / name).astype(float) for name in ("a.png", "out/7.png", "out/8.png"))
    assert np.abs(own - before).mean() > 1.2 * np.abs(default - before).mean() > 0


def test_a_change_that_the_model_does_not_read_leaves_the_film_and_is_said(tmp_path, weights, capsys):
    table = films(tmp_path, '7,a.png,"{""site"": ""B""}",LATERAL,A', header="pair,image,change,view,site")
    assert cli.main(["edit", str(table), "--out", str(tmp_path / "out"), "--steps", "1"]) == 1
    assert "7 is left as it was: nothing that this model reads says" in capsys.readouterr().err
    assert np.array_equal(read_image(tmp_path / "out/7.png"), read_image(tmp_path / "a.png"))
    assert pl.read_csv(tmp_path / "out/labels.csv")["edited"].to_list() == [False]


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([OLDER], "pair,file,change,view,age,sex,Effusion", "no column image"),
        (['7,b.png,"{""age"": 80}",PA,55,F,1'], None, "b.png does not exist"),
        (["7,a.png,older,PA,55,F,1"], None, "row 1: change 'older' is no JSON"),
        (['7,a.png,"{""age"": 55}",PA,55,F,1'], None, "row 1: record 7: its age is 55 already"),
        (['7,a.png,"{""mood"": 1}",PA,55,F,1'], None, "row 1: record 7: unknown attribute 'mood'"),
        ([OLDER, OLDER], None, "pair '7' is there twice"),
        ([OLDER.replace("7", "A", 1), OLDER.replace("7", "a", 1)], None, "pair 'a' is there twice"),
        ([OLDER.replace("7", "\u00e9" * 101, 1)], None, "is no plain file name of up to 200 letters"),
        (['7,a.png,"{""age"": 80, ""age"": 70}",PA,55,F,1'], None, "row 1: change .* 'age' is there twice"),
        (['7,a.png,"{""age"": true}",PA,55,F,1'], None, "row 1: record 7: age True is no number of years"),
        (['7,a.png,"{""age"": 80}",PA,true,F,1'], None, "row 1: age True is no number of years"),
        ([f"7,a.png,{'[' * 5000},PA,55,F,1"], None, "row 1: change"),
        (["7,a.png,,PA,55,F,1"], None, "row 1: change is empty"),
        (['7,,"{""age"": 80}",PA,55,F,1'], None, "row 1: image is empty"),
        (
            [OLDER + ",3", OLDER.replace("7", "8", 1) + ",high"],
            WIDER + "guidance",
            "row 2: guidance 'high' is no weight",
        ),
        ([OLDER + ",-1"], "pair,image,change,view,age,sex,Effusion,guidance", "row 1: guidance -1 is no weight"),
        (['../7,a.png,"{""age"": 80}",PA,55,F,1'], None, "no plain file name"),
        ([], None, "has no rows"),
        ([OLDER, '8,a.png,"{""Effusion"": 0}",PA,old,F,1'], None, "row 2: age 'old' is no number of years"),
        (['7,a.png,"{""age"": 80}",PA,55,Female,1'], None, "row 1: sex 'Female' is none of M, F"),
        (['7,a.png,"{""age"": 80}",front,55,F,1'], None, "row 1: view 'front' is none of PA, AP"),
        (['7,a.png,"{""age"": 80}",PA,55,F,yes'], None, "row 1: Effusion 'yes' is neither 1"),
        ([OLDER + ",1"], WIDER + "No Finding", "row 1: No Finding and Effusion are both 1"),
        ([OLDER + ',"{""finding"": ""Effusion""}"'], WIDER + "details", "is no list"),
        ([OLDER + ",3"], WIDER + "details", "details"),
        ([OLDER + ',"[""left""]"'], WIDER + "details", "details of 'left' are not understood"),
        ([OLDER + ',"[{""finding"": ""Efusion""}]"'], WIDER + "details", "details of 'Efusion', whose column is not 1"),
        ([OLDER + ',"[{""finding"": ""Effusion"", ""side"": ""top""}]"'], WIDER + "details", "side 'top' of Effusion"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_before_anything_is_edited(tmp_path, rows, header, words, capsys):
    table = films(tmp_path, *rows, **({"header": header} if header else {}))
    assert cli.main(["edit", str(table), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert re.search(words, said) and "row 1: guidance '3'" not in said and not (tmp_path / "out").exists()


def test_empty_rows_and_words_for_what_is_not_known_are_not_known(tmp_path):
    table = films(
        tmp_path, "7,a.png,{'age': 80},nan,55,NA,None,<NA>,NaN", ",,,,,,,,", header=WIDER + "guidance,details"
    )
    (row,) = edit_command.read_rows(table)
    assert row["record"] == {"age": 55, "image_id": "7", "details": []}
    assert row["change"] == {"age": 80} and row["guidance"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\0" * 9, "bytes of value 0"),
        (b"PK\3\4 cut off", "damaged or unreadable"),
        (b"<html></html>", "a web page"),
        (b'pair,image,change\n7,a.png,"{}",1,2\n', "cannot be read as a table"),
        (None, "is a folder"),
    ],
)
def test_files_that_are_no_table_are_named(tmp_path, content, words, capsys):
    table = tmp_path / "films.csv"
    table.mkdir() if content is None else table.write_bytes(content)
    assert cli.main(["edit", str(table), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"chexgen: {table}") and words in said


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_table_as_spreadsheets_save_it(tmp_path, encoding):
    """In a folder whose name polars takes for a pattern; a name and an image stay as they are written."""
    folder = tmp_path / "films [v2]"
    folder.mkdir()
    (folder / "001").write_bytes(b"")
    text = 'pair; image;change;age\r\n007;001;"{""age"": 80}";55\r\n\u00e9;001;"{""age"": 80}";55\r\n'
    (folder / "films.csv").write_bytes(text.encode(encoding))
    rows = edit_command.read_rows(folder / "films.csv")
    assert [row["pair"] for row in rows] == ["007", "\u00e9"] and rows[0]["image"] == folder / "001"


def test_a_model_that_cannot_edit_makes_no_folder(tmp_path, pipeline, monkeypatch, capsys):
    monkeypatch.setattr(edit_command, "load_pipeline", lambda name: pipeline)  # trained to predict noise
    assert cli.main(["edit", str(films(tmp_path, OLDER)), "--out", str(tmp_path / "out")]) == 2
    assert "only a rectified flow can be inverted" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_films_are_checked_before_the_first_one_is_edited(tmp_path, weights, capsys):
    table = films(tmp_path, OLDER, *(OLDER.replace("7,a", f"{name},{name}", 1) for name in "bcd"))
    write_png(tmp_path / "b.png", np.random.default_rng(0).random((SIZE, SIZE + 1), np.float32))
    (tmp_path / "c.png").write_bytes(b"half a picture")
    write_png(tmp_path / "d.png", 0.5 + np.eye(SIZE, dtype=np.float32) / 100)
    assert cli.main(["edit", str(table), "--out", str(tmp_path / "out"), "--steps", "1"]) == 2
    said = capsys.readouterr().err
    assert "3 rows cannot be used" in said and f"b.png: has {SIZE + 1} x {SIZE} pixels" in said
    assert f"images.resize(images.read_image(file), {SIZE}), and images.write_png" in said
    assert "c.png" in said and "d.png is no radiograph to edit: nearly flat" in said and "film 0" not in said
    assert not (tmp_path / "out").exists()


def test_the_benchmark_goes_out_and_is_scored(tmp_path, capsys):
    folder = tmp_path / "benchmark"
    sizes = ["--pairs", "6", "--size", "64", "--workers", "0"]
    assert cli.main(["counterfactuals", "make", str(folder), *sizes]) == 0
    assert len(edit_command.read_rows(folder / "labels.csv")) == 6, "`chexgen edit` takes the benchmark as it is"
    assert edit_command.read_rows(folder / "labels.csv")[1]["change"] == benchmark(2)[1].change
    assert cli.main(["counterfactuals", "make", str(folder), *sizes]) == 2
    assert "exists: name a new folder" in capsys.readouterr().err
    assert read_edits(folder, benchmark(6), 64).shape == (6, 64, 64)
    assert cli.main(["counterfactuals", "score", str(folder), *sizes, "--probe-pairs", "6", "--resamples", "20"]) == 0
    results = pl.read_csv(folder / "results.csv", infer_schema_length=None).filter(
        metric="PSNR inside (dB)", attribute="all"
    )
    same = dict(results.select("arm", "value").iter_rows())
    assert same["edited"] == pytest.approx(same["identity"]), "an editor that changes nothing"
    assert json.loads(pl.read_csv(folder / "labels.csv", infer_schema=False)["details"][1]) is not None
