"""`chexgen audit`: what it writes, prints and refuses; the measures are tested in tests/privacy."""

import json

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cli import audit as audit_command
from chexgen_lib.cli import main as cli
from tests.privacy.films import films, write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    trained = films(30, 0)
    write(folder / "training", trained)
    write(folder / "held", films(99, 1))
    write(folder / "copied", np.concatenate([films(2, 2), trained[:3]]))
    return folder


def command(root, pool, *more) -> list[str]:
    folders = ["--training", str(root / "training"), "--held-out", str(root / "held"), "--out", str(root / "out")]
    return ["audit", str(root / pool), *folders, *more]


def test_copies_are_listed_and_the_exit_status_says_so(root, capsys):
    (root / "copied/broken.png").write_bytes(b"")
    (root / "copied/labels.csv").write_text("image\n" + "\n".join([*(f"{i}.png" for i in range(5)), "broken.png"]))
    assert cli.main(command(root, "copied")) == 1
    printed = capsys.readouterr().out
    assert "pool: 5 images of 64 px, 1 excluded" in printed and "verdict: copies" in printed
    images = pl.read_csv(root / "out/images.csv")
    assert set(images.head(3)["file"]) == {"2.png", "3.png", "4.png"} and images["call"][:3].to_list() == ["copy"] * 3
    assert images["nearest"][:3].to_list() == [f"{int(file[0]) - 2}.png" for file in images["file"][:3]]
    assert pl.read_csv(root / "out/excluded.csv")["file"].to_list() == ["broken.png"]
    verdict = json.loads((root / "out/verdict.json").read_text())
    assert verdict["verdict"] == "copies" and verdict["images"] == {"pool": 5, "training": 30, "held-out": 99}
    assert (root / "out/audit.png").is_file() and len(pl.read_csv(root / "out/audit.csv"))
    assert "not measured" in " ".join(pl.read_csv(root / "out/measures.csv")["note"].drop_nulls())


def test_a_folder_of_samples_is_read_by_its_manifest(root, capsys):
    pool = root / "sampled"
    write(pool, films(3, 5))
    for old, new in (("0.png", "a_0.png"), ("1.png", "a_1.png"), ("2.png", "a_condition.png")):
        (pool / old).rename(pool / new)
    (pool / "labels.csv").unlink()
    (pool / "manifest.csv").write_text("file,prompt,seed\na_0.png,Normal.,1\na_1.png,Normal.,2\n")
    cli.main(command(root, "sampled"))
    assert "pool: 2 images of 64 px, 1 excluded" in capsys.readouterr().out
    assert pl.read_csv(root / "out/excluded.csv").rows() == [("pool", "a_condition.png", "not in manifest.csv")]


def test_bad_input_is_one_line(root, capsys):
    assert cli.main(command(root, "nothing")) == 2
    assert (
        capsys.readouterr().err == f"chexgen: {root / 'nothing'}: no such folder; give the folder of the pool images\n"
    )
    assert cli.main([*command(root, "copied")[:-1], str(root / "held/out")]) == 2
    assert "is in" in (said := capsys.readouterr().err) and "whose images are read" in said
    assert cli.main(command(root, "copied", "--false-alarms", "0.001")) == 2
    assert "give at least 999, or --false-alarms 0.01" in capsys.readouterr().err


def test_weights_that_cannot_be_tried_are_named_before_anything_is_compared(root, pipeline, capsys, monkeypatch):
    monkeypatch.setattr(audit_command, "audit", lambda *_: pytest.fail("compared"))
    assert cli.main(command(root, "copied", "--weights", str(root / "none"))) == 2
    said = capsys.readouterr().err
    assert str(root / "none") in said and said.count("\n") == 1
    pipeline.save_pretrained(root / "weights")
    assert cli.main(command(root, "copied", "--weights", str(root / "weights"))) == 2
    assert "images of 64 px, but the generator makes 32: leave out --weights" in capsys.readouterr().err
