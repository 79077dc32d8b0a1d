"""The schedulers that the pipeline accepts follow their paths to the end."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    IPNDMScheduler,
)

from chexgen_lib.diffusion.objectives import DDPM
from chexgen_lib.diffusion.schedulers import (
    ddim_scheduler,
    flow_dpm_solver_scheduler,
    flow_euler_scheduler,
    flow_heun_scheduler,
    samples_objective,
    set_steps,
)
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from tests.sampling.samples import SCHEDULERS, sample, with_scheduler

FLOW_SOLVER = dict(prediction_type="flow_prediction", use_flow_sigmas=True)


@pytest.fixture(scope="module", params=SCHEDULERS, ids=lambda scheduler: scheduler.__name__)
def pipeline(pipeline, request):
    return with_scheduler(pipeline, request.param())


@pytest.mark.parametrize(
    "scheduler, objective",
    [
        (DPMSolverMultistepScheduler(**DDPM), "ddpm"),
        (EulerDiscreteScheduler(**DDPM), "ddpm"),
        (DPMSolverMultistepScheduler(**FLOW_SOLVER), "rectified_flow"),
    ],
)
def test_other_schedulers_fit(pipeline, scheduler, objective):
    assert samples_objective(scheduler) == objective
    assert np.isfinite(sample(with_scheduler(pipeline, scheduler))).all()


def test_a_scheduler_of_the_other_objective_is_refused(pipeline):
    other = ddim_scheduler() if pipeline.transformer.objective == "rectified_flow" else flow_euler_scheduler()
    with pytest.raises(ValueError, match="the transformer was trained as .*choose another scheduler"):
        ChexGenPipeline(**{**pipeline.components, "scheduler": other})
    changed = ChexGenPipeline(**pipeline.components)
    changed.scheduler = other
    with pytest.raises(ValueError, match="the transformer was trained as .*choose another scheduler"):
        sample(changed)


UNFIT = [
    (DDIMScheduler(prediction_type="v_prediction"), "DDIMScheduler takes .* for v_prediction and not for the noise"),
    (EDMEulerScheduler(), "EDMEulerScheduler has other noise levels"),
    (IPNDMScheduler(), "IPNDMScheduler has other noise levels"),
    (DPMSolverMultistepScheduler(prediction_type="flow_prediction"), "without use_flow_sigmas=True: choose another"),
]


@pytest.mark.parametrize("scheduler, message", UNFIT, ids=lambda value: type(value).__name__)
def test_a_scheduler_of_other_noise_or_predictions_is_refused(scheduler, message, pipeline):
    with pytest.raises(ValueError, match=message):
        with_scheduler(pipeline, scheduler)


def test_an_assembled_flow_samples_along_the_flow(pipeline):
    assembled = assemble(pipeline.transformer, "shipped", "minilm")
    assert samples_objective(assembled.scheduler) == pipeline.transformer.objective


@pytest.mark.parametrize("shift", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_flow_samplers_follow_a_straight_path_to_its_end(steps, shift):
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 4, 4, generator=g), torch.randn(2, 4, 4, 4, generator=g)
    calls = {flow_euler_scheduler: steps, flow_heun_scheduler: 2 * steps - 1, flow_dpm_solver_scheduler: steps}
    for make, count in calls.items():
        scheduler = make(shift)
        set_steps(scheduler, steps, "cpu")
        assert len(scheduler.timesteps) == count and float(scheduler.timesteps[0]) == pytest.approx(1000, abs=1)
        x = noise
        for t in scheduler.timesteps:
            x = scheduler.step(noise - clean, t, x, return_dict=False)[0]
        atol = 8e-3 if make is flow_dpm_solver_scheduler else 2e-4  # which starts at 0.999; Heun's divides by 0.001
        torch.testing.assert_close(x, clean, atol=atol, rtol=1e-4)


def test_flow_euler_takes_even_steps_before_the_shift():
    scheduler = flow_euler_scheduler()
    set_steps(scheduler, 4, "cpu")
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 750.0, 500.0, 250.0]))
    scheduler = flow_euler_scheduler(shift=3.0)
    set_steps(scheduler, 4, "cpu")
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 900.0, 750.0, 500.0]))  # 3 s / (1 + 2 s)


def test_a_shifted_first_step_is_guided(pipeline):
    shift, above = 2.986090309309323, []  # one of those whose first time is rounded up
    for scheduler, calls in ((flow_euler_scheduler(shift), 3), (flow_heun_scheduler(shift), 5)):
        pipe = with_scheduler(pipeline, scheduler)
        set_steps(pipe.scheduler, 3, "cpu")
        above.append(float(scheduler.timesteps[0]) > 1000)
        assert pipe._guided_steps((0.0, 1.0), controlled=False) == [True] * calls
    assert any(above)


def test_ddim_recovers_a_clean_latent_when_the_noise_is_known():
    scheduler, g = ddim_scheduler(), torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 4, 4, generator=g), torch.randn(2, 4, 4, 4, generator=g)
    scheduler.set_timesteps(100)
    x = scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    for t in scheduler.timesteps:
        x = scheduler.step(noise, t, x, return_dict=False)[0]
    assert scheduler.timesteps[0] == 999
    torch.testing.assert_close(x, clean, atol=1e-2, rtol=1e-2)
