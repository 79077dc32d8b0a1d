"""A file or folder is replaced whole, or stays as it was; a digest tells values apart and nothing else."""

import ast
import copy
import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import SafetensorError

from chexgen_lib import storage
from chexgen_lib.storage import blocks, digest, files_below, mapped, names_below, replacing, taken, write_blocks


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    with replacing(path) as partial:
        partial.write_text("new")
        assert partial.suffix == ".csv" and not path.exists()
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_no_reader_finds_half_a_folder(tmp_path, monkeypatch):
    """It is killed while the old one, which may have many files, is being removed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "weights"):
        (folder / name).write_text("old")

    def stop(path):
        (path / "weights").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), replacing(folder) as partial:
        patched.setattr(storage.shutil, "rmtree", stop)
        partial.mkdir()
        for name in ("config.json", "weights"):
            (partial / name).write_text("new")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"config.json": "new", "weights": "new"}
    with replacing(folder) as partial:
        partial.mkdir()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_was_put_aside_by_a_move_that_was_killed_is_taken_back(tmp_path):
    (tmp_path / ".a.replaced").mkdir()
    (tmp_path / ".a.replaced/old").touch()
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a"):
        raise KeyboardInterrupt
    assert (tmp_path / "a/old").exists() and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_behind_a_link_is_replaced_where_it_lies_and_a_linked_file_is_not(tmp_path):
    (tmp_path / "disk/old").mkdir(parents=True)
    (tmp_path / "study").symlink_to("disk")
    with replacing(tmp_path / "study") as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert (tmp_path / "study").is_symlink() and [p.name for p in (tmp_path / "disk").iterdir()] == ["new"]
    (tmp_path / "table.csv").symlink_to("disk/new")
    with replacing(tmp_path / "table.csv") as partial:
        partial.write_text("table")
    assert not (tmp_path / "table.csv").is_symlink() and (tmp_path / "disk/new").read_text() == ""


def test_two_writers_of_one_file_are_told(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="a.txt: another process writes it, too"), replacing(path) as partial:
        partial.write_text("mine")
        with replacing(path) as other:
            other.write_text("its")
    assert path.read_text() == "its"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


WRITERS = {
    "a text": lambda path: path.write_text("1" * 10_000),
    "NumPy": lambda path: np.save(path.open("wb"), np.zeros(10_000)),
    "polars": lambda path: pl.DataFrame({"a": range(10_000)}).write_csv(path),
    "parquet": lambda path: pl.DataFrame({"a": range(10_000)}).write_parquet(path),
    "PyTorch": lambda path: torch.save(torch.zeros(10_000), path),
    "Pillow": lambda path: Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)).save(
        path, "PNG"
    ),
}


FULL = r"\(No space left on device\); make room, and start again$"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_by_the_file_that_it_does_not_take(tmp_path, writer):
    path = tmp_path / "model"
    with pytest.raises(OSError, match=f"^{path}: cannot be written {FULL}"), replacing(path) as partial:
        partial.symlink_to("/dev/full")
        WRITERS[writer](partial)


def test_the_file_in_a_folder_is_named_and_not_the_folder_again(tmp_path):
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with (
        pytest.raises(OSError, match=f"partial/model: cannot be written {FULL}") as found,
        replacing(tmp_path / "folder") as folder,
        replacing(folder / "model"),
    ):
        raise full
    assert str(found.value).count("cannot be written") == 1


def test_a_folder_is_replaced_by_a_folder_and_leftovers_go(tmp_path):
    folder = tmp_path / "weights"
    for name in ("weights", ".weights.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    with replacing(folder) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert list(tmp_path.rglob("*")) == [folder, folder / "new"]


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int
    size: str = "small"


DIFFERENT = [
    None, True, 1, 1.5, "1", [], {}, [1, 2], [[1], 2], {"a": 1}, {"a": 2}, {"b": 1}, Settings(1), Settings(2),
    np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.ones(2), np.zeros(0), torch.zeros(2), torch.ones(2),
    torch.zeros(2, dtype=torch.bfloat16), pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [None]}),
    pl.DataFrame({"b": [1]}), torch.nn.Linear(1, 1), torch.nn.Conv2d(1, 1, 1),
]  # fmt: skip


def test_values_that_differ_have_digests_that_differ():
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("value", DIFFERENT)
def test_a_copy_has_the_same_digest(value):
    assert digest(copy.deepcopy(value)) == digest(value)


def test_a_long_frame_is_read_in_parts(monkeypatch):
    frames = [pl.DataFrame({"a": values}) for values in (range(8), range(8), [*range(7), 9], range(9))]
    monkeypatch.setattr(storage, "ROWS", 3)
    first, same, *others = map(digest, frames)
    assert first == same and len({first, *others}) == 3


def test_the_order_of_keys_does_not_count_and_that_of_a_list_does():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_what_lies_behind_a_link_to_a_folder_counts(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"1")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    before = digest(folder)
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"2")
    assert digest(folder) != before


def test_a_folder_with_many_links_to_it_is_read_once_by_its_own_path(tmp_path):
    folder = tmp_path / "a"
    inner = folder / "/".join("z" * 14)
    inner.mkdir(parents=True)
    (inner / "x").write_text("1")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "y").write_text("2")
    for depth in range(14):
        (folder / "/".join("z" * depth) / "b").symlink_to("z")
    (folder / "c").symlink_to(tmp_path / "else")
    (inner / "c").symlink_to(tmp_path / "else")
    assert files_below(folder) == [folder / "c/y", inner / "x"]
    assert names_below(folder, lambda name: name == "c") == [inner.relative_to(folder).as_posix() + "/x"]


def test_one_weight_changes_the_digest_of_a_module():
    model = torch.nn.Linear(2, 2)
    before = digest(model)
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert digest(model) != before


def test_the_configuration_of_a_model_within_a_module_counts():
    """A scaling factor is in no layer and no weight."""
    found = set()
    for factor in (0.5, 0.5, 1.0):
        torch.manual_seed(0)
        vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=4, scaling_factor=factor)
        found.add(digest(torch.nn.ModuleDict({"vae": vae})))
    assert len(found) == 2


def test_a_path_stands_for_what_is_there(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b/x").rename(tmp_path / "b/y")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        digest(tmp_path / "absent")


def test_what_has_no_identity_is_refused():
    with pytest.raises(TypeError, match="a function has no digest"):
        digest(digest)


def test_a_full_disk_is_named_as_such_whoever_writes(tmp_path):
    full = pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")
    with pytest.raises(OSError, match=f"table.parquet: cannot be written {FULL}"):
        with replacing(tmp_path / "table.parquet"):
            raise full
    other = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with pytest.raises(OSError, match=r"cannot be written \(Read-only file system\)"), replacing(tmp_path / "x"):
        raise other
    with pytest.raises(pl.exceptions.ComputeError, match="wrong type"), replacing(tmp_path / "table.parquet"):
        raise pl.exceptions.ComputeError("wrong type")


def test_a_table_in_blocks_is_the_table(tmp_path, monkeypatch):
    table = pl.DataFrame({"n": range(10), "words": [["a"] * k for k in range(10)]})
    table.write_parquet(tmp_path / "table.parquet", row_group_size=4)
    stored = pl.scan_parquet(tmp_path / "table.parquet")
    assert [len(block) for block in blocks(stored, 3)] == [3, 3, 3, 1]
    write_blocks(blocks(stored, 3), tmp_path / "again.parquet")
    assert pl.read_parquet(tmp_path / "again.parquet").equals(table)
    write_blocks(blocks(table.head(0)), tmp_path / "none.parquet")
    assert pl.read_parquet(tmp_path / "none.parquet").equals(table.head(0))
    with pytest.raises(ValueError, match="nothing.parquet: no frame to write"):
        write_blocks([], tmp_path / "nothing.parquet")


def test_lazy_frames_have_the_digest_of_what_they_give(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "ROWS", 3)
    table = pl.DataFrame({"n": range(10), "text": [f"{k}" for k in range(10)]})
    found = set()
    for rows in (2, 5):  # of a group in the file
        table.write_parquet(tmp_path / f"{rows}.parquet", row_group_size=rows)
        found.add(digest(pl.scan_parquet(tmp_path / f"{rows}.parquet")))
    assert found == {digest(table.lazy())}
    changed = table.with_columns(n=pl.when(pl.col("n") == 9).then(0).otherwise("n"))
    assert digest(changed.lazy()) not in found and digest(table.head(9).lazy()) not in found


def test_polars_takes_no_path_for_a_pattern(root):
    """A folder may be called `pool [v2]`; of `a*b`, polars would read the files of other folders, too."""
    readers, patterns = {"read_csv", "scan_csv", "read_parquet", "scan_parquet", "read_parquet_schema"}, []
    for path in sorted((root / "chexgen_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in readers and ast.unparse(called.value) == "pl":
                if "glob=False" not in map(ast.unparse, node.keywords):
                    patterns.append(f"{path}:{node.lineno}")
    assert not patterns


def test_rows_of_a_table_on_the_disk(tmp_path, monkeypatch):
    table = pl.DataFrame({"n": range(50), "text": [f"text {n}" for n in range(50)]})
    table.write_parquet(tmp_path / "table.parquet")
    stored = pl.scan_parquet(tmp_path / "table.parquet")
    monkeypatch.setattr(storage, "ROWS", 7)
    for rows in ([], [0], [49], [3, 9, 10, 11, 40], range(50)):
        rows = np.array(list(rows), np.int64)
        assert taken(stored, rows).equals(table[rows])


def test_a_mapped_table_is_the_table_and_leaves_no_file(tmp_path):
    nested = pl.DataFrame(
        {"text": ["a", None, "long enough to lie outside its view"], "boxes": [[{"x": 1.5}], [], None]}
    )
    whole = mapped([nested, nested.head(0), nested.head(2)], tmp_path)
    assert whole.equals(pl.concat([nested, nested.head(2)])) and not list(tmp_path.iterdir())
    assert whole.filter(pl.col("text").is_null()).equals(pl.concat([nested[1:2], nested[1:2]]))
    assert mapped([nested.head(0)], tmp_path).equals(nested.head(0))
    with pytest.raises(ValueError, match="no frame to map"):
        mapped([], tmp_path)


def test_a_full_disk_below_a_mapped_table_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.tempfile, "TemporaryFile", lambda dir: open("/dev/full", "w+b"))
    with pytest.raises(OSError, match=f"^{tmp_path}/temporary file: cannot be written {FULL}"):
        mapped([pl.DataFrame({"n": range(10_000)})], tmp_path)
