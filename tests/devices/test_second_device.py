"""Nothing is left behind on the CPU when models are elsewhere: all that names a device runs on a second one."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = {"fastest_device", "device_for", "running_device"}
# What is not called on the second device: it hands a device on, or is for the CPU or the meta device alone.
HANDING_ON = ("cli/edit.edit", "cli/judge.judge", "cli/sample.sample", "experiments/judge/instruments.trained")
HANDING_ON += ("experiments/pretraining.pretrain_all", "models/loading.fastest_device", "studio/session.__init__")
HANDING_ON += ("quality/evaluate.evaluate_run", "quality/evaluate.scorer_of")
HANDING_ON += ("models/foundation.load_adapter", "training/cohort_cache.encode_rows")  # to all GPUs, or the CPU
ELSEWHERE = {*HANDING_ON, "models/quantized.int8_weights", "models/released._on_meta", "models/sizing.parameters"}


@pytest.fixture(scope="module")
def outcome(root, tmp_path_factory) -> dict:
    """What went wrong on a second device, for each thing that was tried, and what was called there."""
    path = tmp_path_factory.mktemp("devices") / "outcome.json"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), path]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=1200)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(path.read_text())


def test_all_is_computed_where_the_model_is(outcome):
    assert len(outcome["faults"]) > 40 and {k: v for k, v in outcome["faults"].items() if v} == {}


def test_whatever_names_a_device_is_among_it(outcome, root):
    """A new function with a device needs a case: the second device finds what it forgets there."""
    placed = {place: name for file in (root / "chexgen_lib").rglob("*.py") for place, name in placing(file, root)}
    assert len(placed) > 40
    missing = {name for place, name in placed.items() if place not in outcome["called"]}
    assert missing == ELSEWHERE, "give it a case in tests/devices"


def placing(file: Path, root: Path) -> list[tuple[str, str]]:
    """Place and name of the functions and methods of a file that name a device."""
    room = file.relative_to(root / "chexgen_lib")
    tree = ast.parse(file.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = []
    for node in [*tree.body, *(inner for one in classes for inner in one.body)]:
        if isinstance(node, ast.FunctionDef) and any(map(names_a_device, ast.walk(node))):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.append((f"{room}:{first}", f"{room.with_suffix('')}.{node.name}"))
    return found


def names_a_device(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            return True
        case ast.Attribute(attr="device" | "_execution_device") | ast.keyword(arg="device"):
            return True
    return False
