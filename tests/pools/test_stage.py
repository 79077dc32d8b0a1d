"""Stage 06_pools leaves no pool of earlier settings for later stages, which read pools by their names."""

from contextlib import nullcontext
from types import SimpleNamespace

import polars as pl
import pytest

from chexgen_lib.pools.requests import fitting_prompts
from chexgen_lib.storage import remove
from chexgen_lib.workflow import notebooks


def run_cell(begins: str, **names) -> None:
    cells = notebooks.code_cells(notebooks.read(notebooks.path_of("06_pools")))
    (source,) = [cell.source for cell in cells if cell.source.startswith(begins)]
    exec(source, {"remove": remove, "seed": 0, "int8": False, "parts": None, "few": None} | names)


@pytest.fixture
def stage(tmp_path):
    for name in ("text", "severity", "rivals/severity/baseline", "masks", "boxes", "lungs"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "samples.npy").touch()
    return SimpleNamespace(root=tmp_path, folder=tmp_path, clock=lambda name: nullcontext())


def left(stage) -> list[str]:
    return sorted(path.parent.relative_to(stage.folder).as_posix() for path in stage.folder.rglob("samples.npy"))


def test_without_scores_no_images_of_severity_stay(stage):
    nobody = pl.DataFrame(schema={"prompt": pl.String})
    prompts = SimpleNamespace(requests=lambda *_: nobody, by_grade=lambda graded: None)
    values = {"everyone": None, "severity_records": 0, "sampling": SimpleNamespace(copies=1), "annotated_copies": 1}
    values |= {
        "prompt": "description",
        "fitting_prompts": fitting_prompts,
        "fits": lambda prompts: [True for _ in prompts],
    }
    run_cell("graded =", stage=stage, severity_prompts=prompts, replace=lambda *_, **__: None, **values)
    assert left(stage) == ["boxes", "lungs", "masks", "text"]
    assert (stage.folder / "severity").is_dir() and (stage.folder / "rivals/severity").is_dir()


@pytest.mark.parametrize("made", [["masks", "boxes"], ["lungs"], []])
def test_pools_of_annotations_that_are_not_requested_do_not_stay(stage, made):
    annotated = dict.fromkeys(made, pl.DataFrame({"kind": ["ribs"]}))
    values = dict.fromkeys(("mask_records", "box_records", "annotated_sources", "lung_masks", "datasets"))
    run_cell(
        "requested =",
        stage=stage,
        open_stage=lambda *_, **__: SimpleNamespace(image_size=8),
        request_annotations=lambda *_: (None, annotated),
        sample_annotated_pool=lambda *_: None,
        annotated_copies=2,
        **values,
    )
    assert left(stage) == sorted([*made, "rivals/severity/baseline", "severity", "text"])
    assert all((stage.folder / name).is_dir() for name in ("masks", "boxes", "lungs"))
