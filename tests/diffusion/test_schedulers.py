"""Every scheduler that we name takes noise to the data when an oracle answers for the model, in any number of steps."""

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMParallelScheduler, DDIMScheduler, HeunDiscreteScheduler, PNDMScheduler

from chexgen_lib.diffusion.objectives import DDPM
from chexgen_lib.diffusion.schedulers import (
    SAMPLERS,
    ReleasedDDIMScheduler,
    SpacedDDIMScheduler,
    ddim_scheduler,
    default_scheduler,
    few_steps,
    flow_dpm_solver_scheduler,
    flow_euler_scheduler,
    flow_heun_scheduler,
    ignore_variance,
    released_scheduler,
    samples_objective,
    scheduler_named,
    set_steps,
    spaced,
    uses_variance,
)

SPREAD = 0.5  # of the data, which are normal around 0
NAMED = {f"{objective} {name}": make for objective, samplers in SAMPLERS.items() for name, make in samplers.items()}
NAMED["released ddim"] = lambda: ReleasedDDIMScheduler(**DDPM, clip_sample=False)
DIFFUSERS = ("EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep",
             "DEISMultistep", "LMSDiscrete", "PNDM", "EulerAncestralDiscrete", "SASolver")  # fmt: skip


def oracle(scheduler, x, t):
    """The noise, or the velocity, that is expected of data of a known spread."""
    if samples_objective(scheduler) == "rectified_flow":
        time = float(t) / 1000
        variance = (1 - time) ** 2 * SPREAD**2 + time**2
        return (time - (1 - time) * SPREAD**2) / variance * x
    signal = scheduler.alphas_cumprod[int(t)]
    return (1 - signal).sqrt() / (signal * SPREAD**2 + 1 - signal) * x


def spread(scheduler, count):
    """That of what the scheduler samples."""
    g = torch.Generator().manual_seed(0)
    set_steps(scheduler, count, "cpu")
    x = torch.randn(1000, 4, 1, 1, generator=g) * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        noisy = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        ancestral = {"generator": g} if type(scheduler).__name__ == "DDPMScheduler" else {}
        x = scheduler.step(oracle(scheduler, noisy, t), t, x, return_dict=False, **ancestral)[0]
    return x.std().item()


@pytest.mark.parametrize("count", [61, 100, 150, 334, 501])
@pytest.mark.parametrize("name", NAMED)
def test_samples_have_the_spread_of_the_data(name, count):
    assert spread(NAMED[name](), count) == pytest.approx(SPREAD, abs=0.04)


def test_diffusers_own_ddim_is_replaced_because_it_leaves_noise():
    theirs = DDIMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)
    parallel = DDIMParallelScheduler.from_config(theirs.config)
    for other in (theirs, parallel):
        assert spread(other, 334) > 0.6
        ours = spaced(other)
        assert type(ours) is SpacedDDIMScheduler and spread(ours, 334) == pytest.approx(SPREAD, abs=0.02)
    assert spaced(ours) is ours


@pytest.mark.parametrize("count", [61, 103])
def test_heun_is_not_cut_off_where_diffusers_trailing_steps_are_one_too_many(count):
    scheduler = HeunDiscreteScheduler(**DDPM, timestep_spacing="trailing")
    assert spread(scheduler, count) == pytest.approx(SPREAD, abs=0.02)
    assert len(scheduler.timesteps.unique()) == count and scheduler.timesteps[-1] >= 0


def test_steps_in_which_pndm_leaves_noise_are_refused():
    for spacing in ("trailing", "linspace"):
        scheduler = PNDMScheduler(**DDPM, timestep_spacing=spacing)
        assert spread(scheduler, 100) == pytest.approx(SPREAD, abs=0.02)
        with pytest.raises(
            ValueError, match="PNDMScheduler leaves noise in 150 steps: take a number that divides 1000"
        ):
            set_steps(scheduler, 150, "cpu")
    assert spread(PNDMScheduler(**DDPM), 150) == pytest.approx(SPREAD, abs=0.02), "leading"


def test_pndm_says_how_few_steps_it_takes():
    with pytest.raises(ValueError, match="PNDMScheduler takes no fewer than 4 steps: .*skip_prk_steps=True"):
        set_steps(PNDMScheduler(**DDPM), 3, torch.device("cpu"))
    for scheduler, steps in ((PNDMScheduler(**DDPM), 4), (PNDMScheduler(**DDPM, skip_prk_steps=True), 1)):
        set_steps(scheduler, steps, torch.device("cpu"))


@pytest.mark.parametrize("kind", [SpacedDDIMScheduler, ReleasedDDIMScheduler])
@pytest.mark.parametrize("count", [0, -1, 2.5, None, True])
def test_a_scheduler_by_itself_refuses_an_impossible_number_of_steps(kind, count):
    with pytest.raises(ValueError, match=f"num_inference_steps must be a whole number of at least 1, not {count}"):
        kind(**DDPM).set_timesteps(count)


def test_noise_can_be_added_where_training_ended_without_any_signal():
    settings = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False}
    scheduler = SpacedDDIMScheduler(**DDPM, **settings, timestep_spacing="trailing")
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for count in range(2, 40):
        scheduler.set_timesteps(count)
        assert scheduler.step(x, scheduler.timesteps[0], x, eta=1.0, variance_noise=x).prev_sample.isfinite().all()


SETTINGS = [{}, {"clip_sample": True}, {"thresholding": True}, {"set_alpha_to_one": False}, {"steps_offset": 1},
            {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}]  # fmt: skip


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_where_the_steps_divide_it_is_diffusers_ddim_bit_for_bit(settings, spacing):
    settings = {"clip_sample": False, **settings, "timestep_spacing": spacing}
    schedulers = SpacedDDIMScheduler(**DDPM, **settings), DDIMScheduler(**DDPM, **settings)
    g = torch.Generator().manual_seed(0)
    for scheduler in schedulers:
        scheduler.set_timesteps(20)
    assert torch.equal(*(scheduler.timesteps for scheduler in schedulers))
    x = torch.randn(2, 4, 4, 4, generator=g)
    for t in schedulers[0].timesteps:
        output = torch.randn(2, 4, 4, 4, generator=g)
        for options in ({}, {"eta": 0.7, "variance_noise": output}, {"use_clipped_model_output": True}):
            ours, theirs = (s.step(output, t, x, **options) for s in schedulers)
            assert torch.equal(ours.prev_sample, theirs.prev_sample)
            assert torch.equal(ours.pred_original_sample, theirs.pred_original_sample)
        x = ours.prev_sample


def test_the_released_ddim_draws_noise_and_keeps_its_steps():
    scheduler = ReleasedDDIMScheduler(**DDPM, clip_sample=False)
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [999, 500, 0]
    x = torch.ones(1, 4, 2, 2)
    one, same, other = (
        scheduler.step(x, 500, x, eta=1.0, generator=torch.Generator().manual_seed(seed)).prev_sample
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("name", ["ddpm ddim", "ddpm ancestral", "ddpm dpm-solver++", "released ddim"])
def test_more_steps_than_in_training_are_refused(name):
    with pytest.raises(ValueError, match="at most 1000, the model's steps in training, not 1001"):
        set_steps(NAMED[name](), 1001, "cpu")


def test_steps_that_a_scheduler_cannot_make_are_refused():
    scheduler = diffusers.DEISMultistepScheduler(**DDPM, timestep_spacing="trailing")
    with pytest.raises(ValueError, match="DEISMultistepScheduler makes no 61 steps: take one step more or less"):
        set_steps(scheduler, 61, "cpu")


@pytest.mark.parametrize("make", [flow_euler_scheduler, flow_heun_scheduler])
def test_a_flow_is_shifted_once(make):
    shift, last = 3.0, 1 / 4 if make is flow_euler_scheduler else 1 / 1000
    scheduler = make(shift)
    set_steps(scheduler, 4, "cpu")
    expected = 1000 * shift * last / (1 + (shift - 1) * last)
    assert float(scheduler.timesteps[-1]) == pytest.approx(expected, rel=1e-3)
    assert spread(make(shift), 200) == pytest.approx(SPREAD, abs=0.03)  # Euler's error halves with the step: 0.47 at 50


def flow_error(scheduler, count, mean=0.3):
    """Root mean square distance of a flow's samples from where the exact path of each noise ends, over the spread."""
    noise = torch.randn(500, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    set_steps(scheduler, count, "cpu")
    x = noise
    for t in scheduler.timesteps:
        time = float(t) / 1000
        centre = mean * (1 - time)  # of the noisy data, whose velocity is that of their centre and of what is around it
        velocity = oracle(scheduler, x - centre, t) - mean
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
    return ((x - mean - SPREAD * noise).square().mean().sqrt() / SPREAD).item()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_dpm_solver_reaches_the_end_of_a_flow_in_few_steps(shift):
    counts = (4, 6, 8, 10, 20, 50)
    solver, euler = ([flow_error(make(shift), n) for n in counts]
                     for make in (flow_dpm_solver_scheduler, flow_euler_scheduler))  # fmt: skip
    assert all(ours < theirs for ours, theirs in zip(solver, euler, strict=True))
    assert solver[-1] < 0.01 + 0.005 * (shift - 1)
    if shift == 1:
        assert solver[counts.index(10)] < euler[counts.index(50)] and solver[counts.index(8)] < 0.05


def test_dpm_solver_asks_for_the_times_that_its_steps_are_taken_from():
    scheduler = flow_dpm_solver_scheduler(2.0)
    set_steps(scheduler, 7, "cpu")
    assert torch.equal(scheduler.timesteps, 1000 * scheduler.sigmas[:-1]) and scheduler.sigmas[-1] == 0
    even = scheduler.sigmas[:-1] / (2 - scheduler.sigmas[:-1])  # before the shift
    assert even.tolist() == pytest.approx([0.999 * k / 7 for k in range(7, 0, -1)], abs=1e-5)


def test_a_name_means_the_sampler_of_the_models_objective():
    for objective, samplers in SAMPLERS.items():
        for name in samplers:
            current = default_scheduler(SimpleNamespace(objective=objective, flow_shift=3.0, distilled_steps=None))
            scheduler = scheduler_named(name, current)
            assert samples_objective(scheduler) == objective
            again = scheduler_named(next(iter(samplers)), scheduler)
            assert again.config.get("flow_shift") == current.config.get("flow_shift"), "the shift survives"
    with pytest.raises(ValueError, match=r"'ddim' cannot sample these weights \(rectified_flow\): use dpm-solver\+\+"):
        scheduler_named("ddim", flow_euler_scheduler())


def test_few_steps_keep_the_noise_schedule_or_the_shift():
    theirs = {**DDPM, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}  # Stable Diffusion's
    ours, other = few_steps(ddim_scheduler()), few_steps(diffusers.PNDMScheduler(**theirs))
    for scheduler, settings in ((ours, DDPM), (other, theirs)):
        assert (type(scheduler).__name__, scheduler.config.algorithm_type) == (
            "DPMSolverMultistepScheduler",
            "dpmsolver++",
        )
        assert settings.items() <= scheduler.config.items() and samples_objective(scheduler) == "ddpm"
    for scheduler in (ours, SAMPLERS["ddpm"]["dpm-solver++"]()):
        set_steps(scheduler, 10, "cpu")
    assert torch.equal(ours.timesteps, scheduler.timesteps) and torch.equal(ours.sigmas, scheduler.sigmas)
    assert few_steps(flow_euler_scheduler(2.0)).config.flow_shift == 2.0


@pytest.mark.parametrize("name", DIFFUSERS)
def test_a_learned_variance_is_for_those_who_use_it(name):
    scheduler = getattr(diffusers, f"{name}Scheduler").from_config(released_scheduler().config)
    assert uses_variance(released_scheduler()) and not uses_variance(scheduler)
    ignore_variance(scheduler)
    set_steps(scheduler, 4, "cpu")
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(scheduler.scale_model_input(x, t), t, x, return_dict=False)[0]
    assert x.shape == (2, 4, 4, 4) and np.isfinite(x.numpy()).all()
