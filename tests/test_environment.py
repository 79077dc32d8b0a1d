"""pyproject.toml, requirements.lock and environment.yml describe one environment, and the code fits it."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import chexgen_lib
from chexgen_lib.workflow import notebooks


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def direct(project):
    extra = [text for group in project["optional-dependencies"].values() for text in group]
    return {canonicalize_name(r.name): r for r in map(Requirement, project["dependencies"] + extra)}


@pytest.fixture(scope="module")
def lock(root):
    lines = (root / "requirements.lock").read_text().splitlines()
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, f"{requirement} is not one exact version"
    return specifier.version


def test_lock_holds_every_direct_dependency_at_an_allowed_version(direct, lock):
    for name, requirement in direct.items():
        assert name in lock, f"{name} is not in requirements.lock: run `make lock`"
        assert requirement.specifier.contains(pinned(lock[name])), f"{lock[name]} is not {requirement}"


def test_lock_is_exact_and_names_no_index_path_or_local_build(root, lock):
    for requirement in lock.values():
        assert "+" not in pinned(requirement), f"{requirement} is a local build"
        assert requirement.url is None, f"{requirement} comes from a place, not from the index"
    assert not re.search(r"^\s*(-|#|.*(://|@ ))", (root / "requirements.lock").read_text(), re.MULTILINE)


def test_torch_and_torchvision_are_a_pair(lock):
    wanted = [r for r in map(Requirement, requires("torchvision")) if r.name == "torch"]
    assert wanted and all(r.specifier.contains(pinned(lock["torch"])) for r in wanted)


def test_installed_versions_are_those_of_the_lock(lock):
    here = {name: r for name, r in lock.items() if r.marker is None or r.marker.evaluate()}
    differing = {name: version(name) for name, r in here.items() if version(name) != pinned(r)}
    assert not differing, f"run `make env`; installed, not as in the lock: {differing}"


def test_conda_environment_is_the_lock(root, project):
    environment = YAML(typ="safe").load(root / "environment.yml")
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    assert project["requires-python"] == "==3.11.*"
    assert sys.version_info[:2] == (3, 11)


def test_every_import_is_a_direct_dependency(root, direct):
    """What the code imports is asked for by name, not left to another package's dependencies."""
    sources = {p: p.read_text() for d in ("chexgen_lib", "tests", "benchmarks") for p in (root / d).rglob("*.py")}
    for name in notebooks.names():
        cells = notebooks.code_cells(notebooks.read(notebooks.path_of(name)))
        sources[notebooks.path_of(name)] = "\n".join(cell.source for cell in cells)
    distributions = packages_distributions()
    own = {"chexgen_lib", "tests", "benchmarks", *(p.stem for p in (root / "benchmarks").glob("*.py"))}
    undeclared = set()
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in {name.split(".")[0] for name in names} - sys.stdlib_module_names - own:
                owners = {canonicalize_name(d) for d in distributions.get(module, ["?"])}
                if not owners & direct.keys():
                    undeclared.add(f"{path.relative_to(root)} imports {module} of {'/'.join(sorted(owners))}")
    assert not undeclared, "\n".join(["add to pyproject.toml and run `make lock`:", *sorted(undeclared)])


def test_repository_names_no_path_of_a_machine(root):
    """Tracked text holds no home folder and no folder of the machine that it was written on."""
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    machine = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp|opt|mnt)/\w")
    for name in tracked.split():
        path = root / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".lock", ".ipynb", ".csv") and path.is_file():
            assert not machine.search(path.read_text()), f"{name} names {machine.search(path.read_text())[0]}..."


def test_citation_names_this_version(root):
    citation = YAML(typ="safe").load(root / "CITATION.cff")
    assert citation["version"] == chexgen_lib.__version__
    assert citation["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["answers.sqlite", "answers.sqlite-wal", "curation/records.parquet"])
def test_records_and_answers_of_a_run_stay_out_of_git(root, name):
    ignored = subprocess.run(["git", "check-ignore", "--quiet", f"runs/laptop/{name}"], cwd=root)
    assert ignored.returncode == 0


@pytest.mark.parametrize("line", ['VIRTUAL_ENV="{}"', "    export VIRTUAL_ENV={}", "VIRTUAL_ENV='{}'"])
@pytest.mark.parametrize("moved", [False, True])
def test_an_environment_that_was_moved_with_the_repository_is_named(root, tmp_path, moved, line):
    here = tmp_path / "my repository"
    (here / ".venv/bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (here / name).write_bytes((root / name).read_bytes())
    for name in (".venv/bin/python", ".venv/.complete"):
        (here / name).touch()
    (here / ".venv/bin/activate").write_text(line.format(here / ".venv") + "\n")
    there = here.rename(tmp_path / "elsewhere") if moved else here
    done = subprocess.run(["make", "env"], cwd=there, capture_output=True, text=True)
    assert done.returncode == (2 if moved else 0)
    said = f"error: the environment .venv was built as {here / '.venv'}: remove the folder .venv, and start again\n"
    assert (said in done.stderr) == moved
