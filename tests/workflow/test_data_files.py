"""What DVC watches of the user's data: changes are seen, also behind links, and no file's name leaves its folder."""

import os

import pytest
from dvc.repo import Repo

from chexgen_lib.workflow import data_files
from chexgen_lib.workflow.notebooks import NotebookError

DVC_YAML = """
stages:
  data:
    cmd: cp listed.csv data.csv
    always_changed: true
    outs: [{data.csv: {cache: false}}]
  01_toy:
    cmd: cp data.csv result.csv
    deps: [data.csv]
    outs: [{result.csv: {cache: false}}]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data root with a dataset in it, one behind a link, a table of its own, and the params.yaml that names it."""
    for name in ("repo/data/nih/a.png", "repo/data/nih/part/b.png", "disk/brax/p1.png", "repo/data/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("image")
    (tmp_path / "repo/data/brax").symlink_to(tmp_path / "disk/brax")
    (tmp_path / "repo/data/readme.txt").write_text("what it is")
    (tmp_path / "repo/runs/mine").mkdir(parents=True)
    (tmp_path / "repo/params.yaml").write_text("root: runs/mine\ndata: data\n")
    monkeypatch.setattr(data_files, "ROOT", tmp_path / "repo")
    return tmp_path


def written(place) -> str:
    data_files.write_table()
    return (place / "repo/runs/mine/data.csv").read_text()


def test_the_table_counts_files_and_bytes_and_names_none(place):
    said = written(place)
    lines = [line.rpartition(",")[0] for line in said.splitlines()]
    assert lines == ["folder,files,bytes", ",1,10", "brax,1,5", "nih,2,10"]
    assert "png" not in said and said == written(place)


@pytest.mark.parametrize(
    ("path", "content", "changed"),
    [
        ("disk/brax/p2.png", "image", ["brax"]),  # behind a link
        ("repo/data/nih/part/b.png", "other", ["nih"]),  # of the same size
        ("repo/data/nih/.hidden", "image", []),
    ],
)
def test_a_file_that_is_added_or_replaced_changes_the_row_of_its_folder(place, path, content, changed):
    before = written(place).splitlines()
    (place / path).write_text(content)
    os.utime(place / path, ns=(1, 1))
    after = written(place).splitlines()
    assert [line.split(",")[0] for line in after if line not in before] == changed


def test_a_single_file_is_known_by_its_content(place):
    (place / "repo/params.yaml").write_text("root: runs/mine\ndata: tables.lock\n")
    (place / "repo/tables.lock").write_text("one")
    before = written(place)
    os.utime(place / "repo/tables.lock", ns=(1, 1))
    assert written(place) == before
    (place / "repo/tables.lock").write_text("two")
    assert written(place) != before


def test_a_folder_that_is_not_there_is_named(place):
    (place / "repo/params.yaml").write_text("root: runs/mine\ndata: gone\n")
    with pytest.raises(NotebookError, match="gone: no such folder; link it to yours, or give yours, SET=data=FOLDER"):
        data_files.write_table()


def test_stages_run_again_only_when_the_table_differs(tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    Repo.init(no_scm=True).close()
    for text, stages in (("a", ["data", "01_toy"]), ("a", ["data"]), ("b", ["data", "01_toy"])):
        (tmp_path / "listed.csv").write_text(text)
        with Repo() as repo:
            assert [stage.addressing for stage in repo.reproduce()] == stages


def test_stages_that_read_data_depend_on_the_table(root):
    text = (root / "dvc.yaml").read_text()
    assert text.count("      - ${root}/data.csv\n") == 2 and "- ${data}" not in text
