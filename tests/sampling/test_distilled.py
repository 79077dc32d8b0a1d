"""A distilled model is sampled as it has learned to be, and in no other way."""

import numpy as np
import pytest
import torch

from chexgen_lib.diffusion.schedulers import default_scheduler
from chexgen_lib.experiments.distillation import student_of
from chexgen_lib.sampling.pipeline import ChexGenPipeline


@pytest.fixture
def distilled(flow):
    student = student_of(flow.transformer, 3)
    return ChexGenPipeline(**{**flow.components, "transformer": student, "scheduler": default_scheduler(student)})


def test_it_takes_its_own_steps_without_guidance(distilled, monkeypatch):
    sizes, denoise = [], distilled.transformer.denoise

    def counted(x, *rest, **named):
        sizes.append(len(x))
        return denoise(x, *rest, **named)

    monkeypatch.setattr(distilled.transformer, "denoise", counted)
    distilled("Effusion.", generator=torch.Generator().manual_seed(0))
    assert sizes == [1, 1, 1], "guidance would ask for two at a time"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"num_inference_steps": 4}, "num_inference_steps=4 (--steps)"),
        ({"guidance_scale": 2.0}, "guidance_scale=2 (--guidance)"),
        (
            {"num_inference_steps": 20, "guidance_scale": 2.0},
            "num_inference_steps=20 (--steps) and guidance_scale=2 (--guidance)",
        ),
    ],
)
def test_other_steps_or_guidance_are_refused_and_named_alone(distilled, wrong, named):
    with pytest.raises(ValueError, match="distilled to 3 steps, with guidance learned") as error:
        distilled("Effusion.", **wrong)
    assert str(error.value).endswith(f": leave out {named}")


def test_another_sampler_and_edits_are_refused(distilled, flow):
    with pytest.raises(ValueError, match="the steps of a distilled model cannot be inverted"):
        distilled.edit(np.zeros((32, 32)), {"age": 80}, {"view": "PA"})
    distilled.scheduler = flow.scheduler
    with pytest.raises(ValueError, match="steps of Euler's method, not of DPMSolverMultistepScheduler"):
        distilled("Effusion.")
