"""DVC re-runs a stage when, and only when, what it computes from changes: not for prose, docstrings or outputs."""

import shutil
import sys
import textwrap

import nbformat
import pytest
from dvc.repo import Repo
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from chexgen_lib import code_digest
from chexgen_lib.workflow import dag, notebooks
from chexgen_lib.workflow.notebooks import NotebookError
from tests.builders import write_package

PARAMS = notebooks.load_yaml(notebooks.ROOT / "params.yaml")
STAGES = dag.stages(PARAMS)


@pytest.fixture
def written(request):
    if request.param not in notebooks.names():
        pytest.skip(f"{request.param} is not written yet")
    return request.param


@pytest.mark.parametrize("written", STAGES, indirect=True)
def test_parameters_are_what_the_notebook_declares(written):
    declared = notebooks.declared(notebooks.read(notebooks.path_of(written)), written)
    common = {key for key in notebooks.COMMON if key in declared}
    assert set(STAGES[written]["params"]) == common | {notebooks.section_of(written)}
    notebooks.stage_parameters(written, declared, PARAMS)


@pytest.mark.parametrize("name", STAGES)
def test_stage_depends_on_its_stripped_notebook_the_lock_and_earlier_outputs(name):
    before = list(STAGES)[: list(STAGES).index(name)]
    earlier = {path for stage in before for path in dag.output_paths(STAGES[stage])} | {f"{PARAMS['root']}/data.csv"}
    deps = STAGES[name]["deps"]
    assert {f"runs/stripped/{name}.ipynb", f"runs/stripped/{name}.code", "requirements.lock"} <= set(deps)
    assert STAGES[name]["cmd"] == f"python -m chexgen_lib.workflow.notebooks run {name}"
    for dep in deps:
        assert not dep.startswith(PARAMS["root"]) or dep in earlier, f"no stage before {name} makes {dep}"


def test_dvc_accepts_the_dag(root):
    with Repo(root) as repo:
        commands = {stage.addressing: stage.cmd for stage in repo.index.stages}
    assert commands.keys() == {"strip", "data", *STAGES}
    assert commands["strip"] == "python -m chexgen_lib.workflow.notebooks strip"
    assert commands["data"] == "python -m chexgen_lib.workflow.data_files"


# A DAG of two notebooks in a folder of its own. Its commands only copy what they depend on: DVC is what is tested.
# Starting Python takes longer than all else, so `strip` copies, too: what this process stripped before.

DVC_YAML = """
stages:
  strip:
    cmd: cp -r stripped runs
    deps: [notebooks, chexgen_lib]
    outs:
      - runs/stripped: {cache: false}
  01_toy:
    cmd: mkdir -p runs/laptop/toy && cat runs/stripped/01_toy.* params.yaml data.txt > runs/laptop/toy/result.txt
    params: [root, toy]
    deps: [runs/stripped/01_toy.ipynb, runs/stripped/01_toy.code, data.txt]
    outs: [runs/laptop/toy/result.txt]
  02_after:
    cmd: mkdir -p runs/laptop/after && cat runs/stripped/02_after.* > runs/laptop/after/result.txt
    params: [root, after]
    deps: [runs/stripped/02_after.ipynb, runs/stripped/02_after.code, runs/laptop/toy/result.txt]
    outs: [runs/laptop/after/result.txt]
"""
CELL = """
from pathlib import Path
from chexgen_lib.value import VALUE
Path(root, "toy").mkdir(parents=True, exist_ok=True)
Path(root, "toy", "result.txt").write_text(f"{n + VALUE} {Path('data.txt').read_text()}")
print(n)
"""
AFTER = """
from pathlib import Path
from chexgen_lib import other
Path(root, "after").mkdir(parents=True, exist_ok=True)
Path(root, "after", "result.txt").write_text(Path(root, "toy", "result.txt").read_text() + other.f())
"""


def toy_notebook(parameters='root = "runs/ci"\nn = 1', code=CELL):
    cells = [
        new_markdown_cell("# Toy"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell(code),
    ]
    return new_notebook(cells=cells)


@pytest.fixture
def toy(tmp_path, root, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "chexgen_lib").mkdir()
    (tmp_path / "chexgen_lib/__init__.py").touch()
    (tmp_path / "chexgen_lib/value.py").write_text("# A number.\nVALUE = 10\n")
    (tmp_path / "chexgen_lib/other.py").write_text('def f():\n    """Says it."""\n    return "!"\n')
    (tmp_path / "data.txt").write_text("one")
    (tmp_path / "params.yaml").write_text("root: runs/laptop\nunused: 1\ntoy: {n: 2}\nafter: {m: 1}\n")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(toy_notebook(), tmp_path / "notebooks/01_toy.ipynb")
    nbformat.write(toy_notebook('root = "runs/ci"\nm = 1', AFTER), tmp_path / "notebooks/02_after.ipynb")
    shutil.copy(root / ".dvcignore", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    return tmp_path


def reproduced(toy) -> list[str]:
    """Stages that `dvc repro` ran."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebooks, "STRIPPED", toy / "stripped")
        notebooks.write_stripped(notebooks.names())
    with Repo() as repo:
        return [stage.addressing for stage in repo.reproduce()]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_stages_rerun_when_what_they_compute_from_changes_and_not_for_prose(toy):
    Repo.init(no_scm=True).close()
    path = toy / "notebooks/01_toy.ipynb"
    assert reproduced(toy) == ["strip", "01_toy", "02_after"]

    nbformat.write(with_outputs(toy_notebook()), path)
    edit(toy / "chexgen_lib/value.py", "# A number.", '"""A number, said at length."""\n\n# Ten.')
    edit(toy / "chexgen_lib/other.py", "Says it.", "Says it in other words.")
    edit(toy / "params.yaml", "unused: 1", "unused: 2")
    assert reproduced(toy) == ["strip"]  # and no stage behind it
    assert reproduced(toy) == []

    edit(toy / "chexgen_lib/value.py", "VALUE = 10", "VALUE = 11")
    assert reproduced(toy) == ["strip", "01_toy", "02_after"]  # what uses it, and what follows
    edit(toy / "chexgen_lib/other.py", '"!"', '"?"')
    assert reproduced(toy) == ["strip", "02_after"]
    edit(toy / "params.yaml", "n: 2", "n: 3")
    edit(toy / "data.txt", "one", "two")
    assert reproduced(toy) == ["01_toy", "02_after"]
    nbformat.write(toy_notebook(code=CELL.replace("{n + VALUE}", "{n * VALUE}")), path)
    assert reproduced(toy) == ["strip", "01_toy", "02_after"]


def test_a_stage_runs_the_stripped_notebook_with_the_values_of_params_yaml(toy, monkeypatch):
    monkeypatch.setattr(notebooks, "STRIPPED", toy / "runs/stripped")
    for name, value in notebooks.ENVIRONMENT.items():  # `run` sets it, and it is put back
        monkeypatch.setenv(name, value)
    for command in (["strip"], ["run", "01_toy"]):
        monkeypatch.setattr(sys, "argv", ["notebooks", *command])
        notebooks.main()
    assert (toy / "runs/laptop/toy/result.txt").read_text() == "12 one"
    executed = notebooks.read(toy / "runs/laptop/notebooks/01_toy.ipynb")
    assert executed.cells[-1].outputs[0].text == "2\n"


def with_outputs(notebook):
    notebook.cells[1].execution_count = 1
    notebook.cells[2].execution_count = 2
    notebook.cells[2].outputs = [new_output("stream", name="stdout", text="1\n")]
    notebook.metadata["widgets"] = {"state": {}}
    return notebook


# Which files a notebook depends on.


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Modules that import one another in every way; the fixture lists those that a notebook's code needs."""
    files = {
        "__init__.py": "",
        "a.py": "def f():\n    from chexgen_lib.sub import c\n",
        "b.py": "import json\nTABLE = 'tables/paper.csv'\n",
        "unused.py": "",
        "sub/__init__.py": "",
        "sub/c.py": "from . import d\nfrom ..b import TABLE\n",
        "sub/d.py": "FOLDER = 'weights'\n",
        "sub/weights/model.safetensors": "",
        "sub/other.csv": "",
        "tables/paper.csv": "",
        "lonely/e.py": "",
        "named/__init__.py": "from importlib import import_module\n",
        "named/f.py": "",
    }
    write_package(tmp_path, files)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "STRIPPED", tmp_path / "runs/stripped")
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)

    def modules(code):
        nbformat.write(toy_notebook(code=code), tmp_path / "notebooks/01_toy.ipynb")
        notebooks.write_stripped(["01_toy"])
        lines = (tmp_path / "runs/stripped/01_toy.code").read_text().splitlines()
        return [line.partition(" ")[0].removeprefix("chexgen_lib/") for line in lines]

    return modules


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch", []),
        ("import chexgen_lib", ["__init__.py"]),
        ("from chexgen_lib import b", ["__init__.py", "b.py", "tables/paper.csv"]),
        ("import chexgen_lib.lonely.e as e", ["__init__.py", "lonely/e.py"]),
        ("from chexgen_lib import named", ["__init__.py", "named/__init__.py", "named/f.py"]),
        ("def f():\n    import chexgen_lib.b", ["__init__.py", "b.py", "tables/paper.csv"]),
        (
            "from chexgen_lib.a import f",
            "__init__.py a.py b.py sub/__init__.py sub/c.py sub/d.py".split()
            + ["sub/weights/model.safetensors", "tables/paper.csv"],
        ),
    ],
)
def test_modules_follows_imports_and_named_data(library, code, expected):
    assert library(code) == expected


def test_magics_are_refused_because_imports_could_hide_in_them(library):
    with pytest.raises(NotebookError, match="01_toy.ipynb: not plain Python"):
        library("%run -m chexgen_lib.a")


# What a ci run wrote against what dvc.yaml declares.


def test_outputs_that_dvc_yaml_does_not_declare_are_named(tmp_path, monkeypatch):
    text = """
    stages:
      01_toy:
        cmd: python -m chexgen_lib.workflow.notebooks run 01_toy
        outs: ["${root}/toy/a.csv", "${root}/toy/folder", {"${figures_dir}/b.png": {cache: false}}]
        metrics: [{"${root}/toy/metrics.json": {cache: false}}]
    """
    (tmp_path / "dvc.yaml").write_text(textwrap.dedent(text))
    monkeypatch.setattr(dag, "ROOT", tmp_path)
    monkeypatch.setattr(dag, "compose", lambda *_: {"root": "runs/ci", "figures_dir": "runs/ci/figures"})
    for name in ("toy/a.csv", "toy/folder/x.npy", "toy/metrics.json", "figures/b.png"):
        (tmp_path / "runs/ci" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs/ci" / name).touch()
    dag.check_outputs()
    (tmp_path / "runs/ci/toy/a.csv").rename(tmp_path / "runs/ci/toy/a.csv.gz")
    with pytest.raises(NotebookError) as error:
        dag.check_outputs()
    assert "not written: runs/ci/toy/a.csv\n" in str(error.value)
    assert "not declared: runs/ci/toy/a.csv.gz" in str(error.value)
