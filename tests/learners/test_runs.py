"""Finished runs are kept, changed ones done anew, failed ones not kept; processes change nothing."""

from pathlib import Path

import numpy as np
import pytest

from chexgen_lib.code_digest import needed
from chexgen_lib.learners import runs


def scaled(x, *, factor, log=None):
    if log:
        with open(log, "a") as file:
            file.write(f"{factor}\n")
    return {"y": x * factor}


X = np.arange(3.0)


def test_finished_runs_are_read_and_others_done(tmp_path):
    log = str(tmp_path / "log")
    jobs = {name: {"factor": f, "log": log} for name, f in (("a", 1.0), ("b", 2.0))}
    first = runs.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    np.testing.assert_array_equal(first["b"]["y"], 2 * X)
    jobs["b"] = {"factor": 3.0, "log": log}
    again = runs.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    np.testing.assert_array_equal(again["b"]["y"], 3 * X)
    assert open(log).read().split() == ["1.0", "2.0", "3.0"]
    assert len(list((tmp_path / "runs").glob("*.npz"))) == 2  # what no job wants is gone
    runs.run_all(scaled, {"x": X + 1}, jobs, tmp_path / "runs", workers=0)
    assert len(open(log).read().split()) == 5  # other data: both again


def test_a_change_of_any_imported_module_does_a_run_anew(tmp_path, monkeypatch):
    log, module = str(tmp_path / "log"), tmp_path / "far.py"
    module.write_text("FACTOR = 1")
    monkeypatch.setattr(runs, "needed", lambda source: [module] if "def scaled" in source else [])
    jobs = {"a": {"factor": 1.0, "log": log}}
    for _ in range(2):
        runs.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    assert len(open(log).read().split()) == 1
    module.write_text("FACTOR = 2")
    runs.run_all(scaled, {"x": X}, jobs, tmp_path / "runs", workers=0)
    assert len(open(log).read().split()) == 2
    assert "trainer.py" in {path.name for path in needed("from chexgen_lib.experiments import flow_comparison")}


def stoppable(x, *, folder, stop):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log", "a") as file:
        file.write("started\n")
    if Path(stop).exists():
        raise KeyboardInterrupt
    return {"times": np.array(len((folder / "log").read_text().split()))}


def test_a_run_has_a_folder_of_its_own_until_its_result_is_kept(tmp_path):
    stop, kept = tmp_path / "stop", tmp_path / "runs"
    jobs = {"a": {"stop": str(stop)}}
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        runs.run_all(stoppable, {"x": X}, jobs, kept, workers=0)
    assert len(list(kept.glob("*.unfinished"))) == 1
    stop.unlink()
    assert runs.run_all(stoppable, {"x": X}, jobs, kept, workers=0)["a"]["times"] == 2
    assert not list(kept.glob("*.unfinished"))
    (kept / "0123.unfinished").mkdir()  # of a job that nobody wants any more
    runs.run_all(stoppable, {"x": X}, jobs, kept, workers=0)
    assert not list(kept.glob("*.unfinished"))


def test_an_interrupted_series_goes_on(tmp_path, monkeypatch):
    done, run = [], runs._run

    def stops(function, data, settings, path, name):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        run(function, data, settings, path, name)

    jobs = {str(k): {"factor": float(k)} for k in range(4)}
    monkeypatch.setattr(runs, "_run", stops)
    with pytest.raises(KeyboardInterrupt):
        runs.run_all(scaled, {"x": X}, jobs, tmp_path, workers=0)
    monkeypatch.setattr(runs, "_run", lambda *call: (done.append(call[-1]), run(*call)))
    results = runs.run_all(scaled, {"x": X}, jobs, tmp_path, workers=0)
    assert sorted(done) == ["0", "1", "2", "3"] and results["3"]["y"][2] == 6


def test_a_run_that_is_not_finite_is_named_and_not_kept(tmp_path):
    with pytest.raises(ValueError, match="run 'bad': y holds values that are not finite"):
        runs.run_all(scaled, {"x": X}, {"bad": {"factor": float("nan")}}, tmp_path, workers=0)
    assert not list(tmp_path.glob("*.npz"))


def test_processes_give_what_one_gives(tmp_path):
    jobs = {str(k): {"factor": float(k)} for k in range(3)}
    alone = runs.run_all(scaled, {"x": X}, jobs, tmp_path / "a", workers=0)
    several = runs.run_all(scaled, {"x": X}, jobs, tmp_path / "b", workers=2)
    assert all(np.array_equal(alone[k]["y"], several[k]["y"]) for k in jobs)
