"""A workplace is a repository of its own: it follows this one, and nothing outside of it is touched."""

import sys

import pytest

from chexgen_lib.rehearsal import __main__ as command
from chexgen_lib.rehearsal import workplace
from chexgen_lib.workflow import dag, settings
from chexgen_lib.workflow.notebooks import NotebookError

ROENTGEN = "StanfordAIMI/roent-gen-v1-0"


def test_it_follows_the_repository_and_keeps_what_was_made(tmp_path, monkeypatch):
    source, place = tmp_path / "repository", tmp_path / "place"
    for path in ("chexgen_lib/a.py", "chexgen_lib/__pycache__/a.pyc", "notebooks/n.ipynb", "conf/c", "dvc.yaml"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(path)
    (place / "chexgen_lib").mkdir(parents=True)
    (place / "chexgen_lib/old.py").touch()
    (place / "runs").mkdir()
    workplace._mirror(source / "chexgen_lib", place / "chexgen_lib")
    assert [path.name for path in (place / "chexgen_lib").iterdir()] == ["a.py"] and (place / "runs").is_dir()
    before = (place / "chexgen_lib/a.py").stat().st_mtime_ns
    workplace._mirror(source / "chexgen_lib", place / "chexgen_lib")
    assert (place / "chexgen_lib/a.py").stat().st_mtime_ns == before
    (source / "chexgen_lib/a.py").write_text("changed")
    workplace._mirror(source / "chexgen_lib", place / "chexgen_lib")
    assert (place / "chexgen_lib/a.py").read_text() == "changed"


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(NotebookError, match="is no workplace of this version"):
        workplace.prepare(tmp_path, "paper")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["papper"], "no profile 'papper' in conf/profile; there are: ci, "),
        (["paper", "--stages", "07_qualty"], "no stage '07_qualty' in dvc.yaml; there are: 01_curation, "),
    ],
)
def test_a_misspelt_profile_or_stage_is_named_before_anything_is_written(words, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rehearsal", *words, "--folder", str(tmp_path / "place")])
    with pytest.raises(NotebookError, match=message):
        command.main()
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", {"baseline": None, "RoentGen": ROENTGEN, "MINIM": "data/weights/minim"}),
        ("++generators.MINIM=data/m", {"baseline": None, "RoentGen": ROENTGEN, "MINIM": "data/m"}),
        ("+generators.RoentGen=data/r seed=1", {"baseline": None, "RoentGen": "data/r", "MINIM": "data/weights/minim"}),
        ("~generators.MINIM +generators.Mine=data/m", {"baseline": None, "RoentGen": ROENTGEN, "Mine": "data/m"}),
        ("~generators.baseline", {"RoentGen": ROENTGEN, "MINIM": "data/weights/minim"}),
        ("~generators +generators={MINIM: data/m}", {"MINIM": "data/m"}),
    ],
)
def test_the_users_generators_take_the_place_of_the_rehearsals(given, expected, tmp_path):
    beside = workplace.with_rivals(settings.split(given, dag.plain("paper")))
    assert dag.compose("paper", tmp_path / "params.yaml", beside)["generators"] == expected


def test_stand_ins_of_other_code_are_made_again(tmp_path, monkeypatch):
    code = {"datasets.py": "1", "weights.py": "1"}
    monkeypatch.setattr(workplace.code_digest, "of", code.get)

    def outdated() -> list[str]:
        for name in ("data", "home"):
            (tmp_path / name).mkdir(exist_ok=True)
        workplace._outdated(tmp_path / "made_by.json", {"datasets.py": ["data", None], "weights.py": ["home"]})
        return sorted(path.name for path in tmp_path.iterdir() if path.is_dir())

    assert outdated() == []  # nobody knows of what code
    assert outdated() == ["data", "home"]
    code["datasets.py"] = "2"
    assert outdated() == ["home"]


def test_stages_see_the_workplace_and_no_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    seen = workplace.environment(tmp_path)
    assert seen["HOME"] == str(tmp_path / "home") and seen["PYTHONPATH"].startswith(str(tmp_path))
    assert "HF_HOME" not in seen and seen["HF_HUB_OFFLINE"] == "1"


def test_stand_ins_are_never_written_into_a_folder_of_the_user(tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    params = {"curation": {"data_root": str(real)}, "annotation_to_image": {"lung_masks": None}}
    monkeypatch.setattr(workplace, "COPIED", ())
    monkeypatch.setattr(workplace.dag, "compose", lambda profile, output, overrides: params)
    monkeypatch.setattr(workplace.dag, "plain", lambda profile: params)
    with pytest.raises(NotebookError, match="into its own folder only"):
        workplace.prepare(tmp_path / "place", "mine")
    assert not list(real.iterdir())


@pytest.mark.parametrize("folder", ["data/nih-mini/images", "/real"])
def test_a_profile_with_a_folder_of_images_is_refused(folder, tmp_path, monkeypatch):
    params = {
        "curation": {"data_root": None, "image_folder": folder},
        "annotation_to_image": {"lung_masks": None},
    }
    monkeypatch.setattr(workplace, "COPIED", ())
    monkeypatch.setattr(workplace.dag, "compose", lambda profile, output, overrides: params)
    monkeypatch.setattr(workplace.dag, "plain", lambda profile: params)
    with pytest.raises(NotebookError, match=f"names curation.image_folder {folder}: the rehearsal has no stand-ins"):
        workplace.prepare(tmp_path / "place", "nih-mini")
    assert not (tmp_path / "place/home").exists()
