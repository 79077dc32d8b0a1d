"""What a result is made with: a module and all that it needs of the library."""

import pytest

from chexgen_lib import code_digest
from tests.builders import write_package


def test_the_modules_behind_a_function_are_followed():
    assert "trainer.py" in {
        path.name for path in code_digest.needed("from chexgen_lib.experiments.rectified_flow import comparison")
    }


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package with a module that reads a table of its own, imports its neighbour and knows a folder of weights."""
    files = {
        "a.py": "from . import b\nTABLE, WEIGHTS = 'table.csv', 'weights'\n",
        "b.py": "FACTOR = 1\n",
        "table.csv": "1",
        "weights/model.safetensors": "1",
    }
    write_package(tmp_path, files)
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    return tmp_path / "chexgen_lib"


@pytest.mark.parametrize(
    ("name", "content"), [("table.csv", "2"), ("weights/model.safetensors", "2"), ("b.py", "FACTOR = 2\n")]
)
def test_what_the_module_itself_reads_and_imports_counts(library, name, content):
    before = code_digest.of(library / "a.py")
    (library / name).write_text(content)
    assert code_digest.of(library / "a.py") != before


@pytest.mark.parametrize("name", [".DS_Store", "._model.safetensors", "recipe.json~", "~$recipe.json"])
def test_what_a_system_or_an_editor_leaves_in_a_folder_does_not_count(library, name):
    before = code_digest.of(library / "a.py")
    (library / "weights" / name).write_text("1")
    code_digest._data_files.cache_clear()
    code_digest._needs.cache_clear()
    assert code_digest.of(library / "a.py") == before
