"""A run's models sample in few steps; where the run's is the shipped foundation, its student samples in its place."""

import pytest
import torch

from chexgen_lib.models.foundation import DISTILLED, load_transformer
from chexgen_lib.models.quantized import Int8Block
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.models import open_stage
from chexgen_lib.sampling.generators import Parts

PARTS = Parts("shipped", "minilm")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose stage I is the shipped foundation, and whose stage II has moved away from it by one number."""
    root = tmp_path_factory.mktemp("run")
    model = load_transformer(device=torch.device("cpu"))
    model.save_pretrained(root / "pretraining/transformer")
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 0.01
    model.save_pretrained(root / "alignment/transformer")
    return root


def test_the_student_samples_for_the_foundation_alone(run):
    student = open_stage(run, "pretraining", PARTS, student=DISTILLED)
    assert student.distilled_steps == load_transformer(DISTILLED).distilled_steps
    for stage, name in (("alignment", DISTILLED), ("pretraining", None)):
        own = open_stage(run, stage, PARTS, student=name)
        saved = ChexGenTransformer.from_pretrained(run / stage / "transformer").state_dict()
        assert own.distilled_steps is None and type(own.scheduler).__name__ == "DPMSolverMultistepScheduler"
        assert all(torch.equal(saved[name], tensor) for name, tensor in own.transformer.state_dict().items())


def test_weights_of_8_bits(run):
    pipeline = open_stage(run, "pretraining", PARTS, int8=True, student=DISTILLED)
    assert pipeline.distilled_steps is not None
    assert any(isinstance(module, Int8Block) for module in pipeline.transformer.modules())


def test_a_stage_that_has_not_run(tmp_path):
    with pytest.raises(ValueError, match="pretraining/transformer"):
        open_stage(tmp_path, "pretraining", PARTS)
