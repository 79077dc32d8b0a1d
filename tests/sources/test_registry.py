"""The datasets and `chexgen data`: what there is, what of it is on the disk, and what to do first."""

import re
from pathlib import Path

import polars as pl
import pytest

from chexgen_lib import code_digest
from chexgen_lib.cli import main as cli
from chexgen_lib.descriptions import corpus
from chexgen_lib.records import RecordError
from chexgen_lib.sources import nih, registry, vindr_cxr
from chexgen_lib.sources.datasheet import ROLES
from chexgen_lib.sources.table import read_table, shipped
from tests.sources.layouts import put, vindr_folder

DOCS = Path(__file__).parents[2] / "docs/datasets.md"


def test_every_dataset_has_a_datasheet_under_its_own_name():
    sheets = registry.sheets()
    assert {sheet.source for sheet in sheets} == set(registry.ALL) >= set(registry.ALWAYS)
    assert [sheet.source for sheet in sheets if sheet.shipped].__len__() >= len(registry.ALWAYS)
    for sheet in sheets:
        assert sheet.role in ROLES and sheet.parts and sheet.citation and sheet.licence and sheet.obtain, sheet.source


def test_the_papers_stage_1_is_complete():
    """Every dataset of ED Table 1, stage I, is a source, and they add up to the paper's corpus."""
    table = registry.overview().filter(role="stage I")
    assert table.height == 8 and table["paper"].sum() == 959206


def test_overview_of_a_root(tmp_path):
    (tmp_path / "brax").mkdir()
    (tmp_path / "ralo").mkdir()
    (tmp_path / "ralo/ralo-dataset-metadata.csv").write_text("x")
    state = dict(registry.overview(tmp_path).select("source", "state").iter_rows())
    assert state["brax"] == "empty" and state["ralo"] == "1 of 2 parts missing"
    assert state["nih"] == registry.STATE_SHIPPED and state["mimic_cxr"] == "absent"


def test_images_without_a_table_are_not_called_present(tmp_path):
    put(tmp_path / "nih", {"images/00000001_000.png": "x"})
    state = dict(registry.overview(tmp_path).select("source", "state").iter_rows())
    assert state["nih"] == "no table"
    report, ready = registry.check("nih", tmp_path)
    assert not ready and "nih/**/Data_Entry_2017*.csv* or **/sample_labels.csv (labels" in report


def test_a_check_reads_each_table_once(tmp_path, monkeypatch):
    vindr_folder(tmp_path / "vindr_cxr")
    read, of_tables = [], vindr_cxr.read_table
    monkeypatch.setattr(vindr_cxr, "read_table", lambda path, *columns: read.append(path) or of_tables(path, *columns))
    registry.check("vindr_cxr", tmp_path)
    assert len(read) == len(set(read)) == 4


def test_check_of_a_shipped_table():
    report, ready = registry.check("nih")
    assert ready and "112,120 rows = " in report and "paper: 112,120 cases" in report


def test_check_names_the_first_remedy(tmp_path):
    (tmp_path / "brax").mkdir()
    report, ready = registry.check("brax", tmp_path)
    first = registry.reader("brax").DATASHEET.parts[0]
    assert not ready and "first remedy" in report and first.pattern in report


def test_check_of_what_is_not_there(tmp_path):
    with pytest.raises(RecordError, match="brax: its table is not shipped; name the data root"):
        registry.check("brax")
    with pytest.raises(RecordError, match="brax: no such folder; put the dataset there"):
        registry.check("brax", tmp_path)
    with pytest.raises(RecordError, match="no such folder; name the data root"):
        registry.overview(tmp_path / "gone")
    with pytest.raises(RecordError, match="ralo: its table is not shipped; give its folder. To obtain: download"):
        registry.load("ralo")
    with pytest.raises(RecordError, match="unknown source 'brux'"):
        registry.check("brux", tmp_path)


def test_commands(tmp_path, capsys):
    assert cli.main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(source in listed for source in registry.ALL)
    assert cli.main(["data", "check", "--source", "brax", "--root", str(tmp_path)]) == 2
    (tmp_path / "brax").mkdir()
    assert cli.main(["data", "check", "--source", "brax", "--root", str(tmp_path)]) == 1


def test_build_of_a_corpus(tmp_path, capsys, monkeypatch):
    def load_few(source, folder):
        records, rejects = load(source, folder)
        return records.head(300), rejects

    load = registry.load
    monkeypatch.setattr(registry, "load", load_few)
    monkeypatch.setattr(registry, "emptied", lambda source, folder: [])  # reads all again; see the next test
    assert cli.main(["data", "build", "openi", "--out", str(tmp_path), "--shard", "0/1"]) == 0
    assert capsys.readouterr().out == "300 records in 1 file, 104 rejects\n"
    assert corpus.stream(tmp_path).select(pl.len()).collect().item() == 300
    assert cli.main(["data", "build", "openi", "--out", str(tmp_path), "--shard", "half"]) == 2
    assert cli.main(["data", "build", "openi", "openj", "--out", str(tmp_path / "new")]) == 2
    assert cli.main(["data", "build", "openi=", "--out", str(tmp_path / "new")]) == 2
    assert "'openi=': give a folder behind =" in capsys.readouterr().err
    assert cli.main(["data", "build", "openi", "brax", "--out", str(tmp_path / "new")]) == 2
    assert "brax: its table is not shipped; give its folder, brax=FOLDER" in capsys.readouterr().err
    assert cli.main(["data", "build", "openi", f"brax={tmp_path}/gone", "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    assert cli.main(["data", "build", "openi", "--out", str(tmp_path), "--shard", "0/2"]) == 2
    assert "holds shards of another number" in capsys.readouterr().err
    assert corpus.stream(tmp_path).select(pl.len()).collect().item() == 300


def test_a_build_says_what_is_left_empty_and_refuses_a_table_without_a_record(tmp_path, capsys):
    table = read_table(shipped(nih.TABLE), nih.COLUMNS).select(nih.COLUMNS).head(3)
    given = tmp_path / "nih/Data_Entry_2017_v2020.csv"
    given.parent.mkdir()
    table.with_columns(pl.Series("View Position", ["PA", "SIDE", "SIDE"])).write_csv(given)
    assert cli.main(["data", "build", f"nih={given.parent}", "--out", str(tmp_path / "new")]) == 0
    assert "nih: 2 x view left empty, first 'SIDE' in row 2" in capsys.readouterr().out
    table.clear().write_csv(given)
    assert cli.main(["data", "build", f"nih={given.parent}", "--out", str(tmp_path / "newer")]) == 2
    assert "nih: no record among 0 rows; see chexgen data check --source nih" in capsys.readouterr().err


def test_a_folder_below_the_home_is_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["data", "build", "brax=~/gone", "--out", str(tmp_path / "new")]) == 2
    assert f"{tmp_path}/gone: no such folder" in capsys.readouterr().err


def test_load_all_takes_what_lies_below_the_root(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "ALWAYS", ("nih", "chexpert"))
    table = read_table(shipped(nih.TABLE), nih.COLUMNS).select(nih.COLUMNS).head(3)
    (tmp_path / "nih/images_001/images").mkdir(parents=True)
    table.write_csv(tmp_path / "nih/Data_Entry_2017_v2020.csv")
    (tmp_path / "nih/images_001/images" / table["Image Index"][1]).write_bytes(b"x")
    vindr_folder(tmp_path / "vindr_cxr")
    loaded = registry.load_all(tmp_path)
    assert loaded.keys() == {"nih", "chexpert", "vindr_cxr"}  # of stage I or not
    assert loaded["vindr_cxr"][0]["image"].to_list()[0] == "vindr_cxr/train/a.dicom"
    records, rejects = loaded["nih"]
    assert records["image"].to_list() == [f"nih/images_001/images/{table['Image Index'][1]}"]
    assert set(rejects["reason"]) == {"no image file in the folder"} and records.height + rejects.height == 3


def test_a_check_counts_values_that_are_left_empty(tmp_path):
    table = read_table(shipped(nih.TABLE), nih.COLUMNS).select(nih.COLUMNS).head(4)
    ages = pl.Series(["abc", "999", "50", "50"])
    (tmp_path / "nih").mkdir()
    table.with_columns(ages.alias("Patient Age")).write_csv(tmp_path / "nih/Data_Entry_2017_v2020.csv")
    report, _ = registry.check("nih", tmp_path)
    assert "4 rows = 4 records + 0 rejects" in report
    assert "2 x age left empty, first 'abc' in row 1" in report


def test_tables_of_nih_without_images_leave_its_records_for_images_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "ALWAYS", ("nih",))
    table = read_table(shipped(nih.TABLE), nih.COLUMNS).select(nih.COLUMNS).head(3)
    for folder in ("DATA/nih", "images"):
        (tmp_path / folder).mkdir(parents=True)
    table.write_csv(tmp_path / "DATA/nih/Data_Entry_2017_v2020.csv")
    (tmp_path / "DATA/nih/test_list.txt").write_text(table["Image Index"][0])
    (tmp_path / "images" / table["Image Index"][2]).write_bytes(b"x")
    loaded = registry.load_all(tmp_path / "DATA")
    records, rejects = loaded["nih"]
    assert records["split"].to_list() == ["test", "train", "train"] and rejects.is_empty()
    attached, rejects = registry.with_images(loaded, tmp_path / "images")["nih"]
    assert attached["image"].to_list() == [table["Image Index"][2]] and rejects.height == 2


def test_a_folder_of_films_that_are_not_nihs_is_refused_with_the_name_that_is_looked_for(tmp_path):
    loaded = {"nih": tuple(table.head(3) for table in registry.load("nih"))}
    (tmp_path / "film_1.png").touch()
    with pytest.raises(RecordError, match=r"no file is named as one of NIH's images \(00000001_000.png\).*own"):
        registry.with_images(loaded, tmp_path)


def test_the_page_of_datasets_is_made_from_the_datasheets():
    assert DOCS.read_text() == registry.page(), "run make docs"


def test_text_shows_every_row():
    assert registry.text(pl.DataFrame({"n": list(range(50))})).count("\n") >= 50
    table = pl.DataFrame({"n": [1, None], "a": [None, "x"]})
    assert registry.text(table).split() == "n a 1 - - x".split()  # no "null"


@pytest.mark.parametrize("source", [s for s in registry.ALL if not registry.reader(s).DATASHEET.shipped])
def test_a_dataset_that_is_not_shipped_says_how_to_get_it(source, tmp_path):
    with pytest.raises(RecordError, match=re.escape(registry.reader(source).DATASHEET.obtain)):
        registry.load(source)
    folders = [tmp_path / "gone"] * (2 if source == "mimic_cxr" else 1)
    with pytest.raises(RecordError, match="no such file or folder|holds no"):
        registry.reader(source).load(*folders)


def test_code_that_words_curated_records_depends_on_no_reader():
    """So a new dataset re-runs the curation alone."""
    wording = "from chexgen_lib.descriptions import grammar, nouns, report_parser"
    names = {path.stem for path in code_digest.needed(wording) if path.parent.name == "sources"}
    assert not names & {"registry", *registry.ALL}
    assert set(registry.ALL) <= {p.stem for p in code_digest.needed("import chexgen_lib.sources.registry")}
