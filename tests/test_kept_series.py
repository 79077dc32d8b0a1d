"""Of many small calls, those that are finished are read, and an interrupted series goes on where it was."""

from pathlib import Path

import numpy as np
import pytest

from chexgen_lib import kept

X = np.arange(3.0)


def calls(log):
    return Path(log).read_text().splitlines()


def scaled(x, *, factor, log=None):
    if log:
        with open(log, "a") as file:
            file.write(f"{factor}\n")
    return {"y": x * factor}


def results(folder):
    return sorted(p for p in Path(folder).iterdir() if p.is_dir())


def test_finished_runs_are_read_and_others_done(tmp_path):
    log = str(tmp_path / "log")
    jobs = {name: {"factor": f, "log": log} for name, f in (("a", 1.0), ("b", 2.0))}
    first = kept.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    np.testing.assert_array_equal(first["b"]["y"], 2 * X)
    jobs["b"] = {"factor": 3.0, "log": log}
    again = kept.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    np.testing.assert_array_equal(again["b"]["y"], 3 * X)
    assert calls(log) == ["1.0", "2.0", "3.0"]
    assert len(results(tmp_path / "runs")) == 2  # what no job requests is gone
    kept.run_all(scaled, {"x": X + 1}, jobs, tmp_path / "runs", workers=0)
    assert len(calls(log)) == 5  # other data: both again


def stoppable(x, *, folder, stop):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log", "a") as file:
        file.write("started\n")
    if Path(stop).exists():
        raise KeyboardInterrupt
    return {"times": np.array(len((folder / "log").read_text().split()))}


def test_a_run_has_a_folder_for_checkpoints_until_its_result_is_kept(tmp_path):
    stop, folder = tmp_path / "stop", tmp_path / "runs"
    jobs = {"a": {"stop": str(stop)}}
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        kept.run_all(stoppable, {"x": X}, jobs, folder, workers=0)
    stop.unlink()
    assert kept.run_all(stoppable, {"x": X}, jobs, folder, workers=0)["a"]["times"] == 2
    (only,) = results(folder)
    assert {p.name for p in only.iterdir()} == {"result.npz", "kept.json"}
    (folder / ".0123.unfinished-0123").mkdir()  # of a job that nobody requests any more
    kept.run_all(stoppable, {"x": X}, jobs, folder, workers=0)
    assert results(folder) == [only]


def test_an_interrupted_series_goes_on(tmp_path):
    log, stop = str(tmp_path / "log"), tmp_path / "stop"
    jobs = {str(k): {"factor": float(k), "log": log} for k in range(4)}
    jobs["2"] |= {"factor": float("nan")}
    with pytest.raises(ValueError, match="run '2': y holds values that are not finite"):
        kept.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    assert not stop.exists() and len(results(tmp_path / "runs")) == 3  # two, and what the failed one had begun
    jobs["2"] |= {"factor": 2.0}
    done = kept.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    assert calls(log) == ["0.0", "1.0", "nan", "2.0", "3.0"] and done["3"]["y"][2] == 6


def test_a_run_that_ended_is_not_made_again_for_want_of_its_note(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    log = tmp_path / "log"
    jobs = {"a": {"factor": 1.0, "log": str(log)}}
    with monkeypatch.context() as patched:
        patched.setattr(kept, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            kept.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    done = kept.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    assert len(calls(log)) == 1 and np.array_equal(done["a"]["y"], X)


def test_processes_give_what_one_gives(tmp_path):
    jobs = {str(k): {"factor": float(k)} for k in range(3)}
    alone = kept.run_all(scaled, {"x": X}, jobs, tmp_path / "a", workers=0)
    several = kept.run_all(scaled, {"x": X}, jobs, tmp_path / "b", workers=2)
    assert all(np.array_equal(alone[k]["y"], several[k]["y"]) for k in jobs)
