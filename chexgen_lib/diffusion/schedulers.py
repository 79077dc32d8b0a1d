"""The samplers of either objective: the paper's DDIM, one for few steps, those of the released code, a flow's."""

import inspect

import numpy as np
import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from chexgen_lib.checks import check_count
from chexgen_lib.diffusion.objectives import DDPM

LEARNED = ("learned", "learned_range")  # variances that a model predicts
FIRST_STEPS = 4  # of PNDM, by Runge-Kutta's method, unless it skips them
MAX_GAP = 0.02  # share of the training's steps that PNDM may leave out: a spread of 0.5 becomes 0.51 at most


class SpacedDDIMScheduler(DDIMScheduler):
    """DDIM whose steps end where the next one begins, for every number of steps.

    diffusers' own takes each step to end `num_train_timesteps // N` lower. Where N does not divide that number, steps
    overlap or leave gaps, and the last one leaves noise in the latents. Where it does, both are equal bit for bit.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        check_count("num_inference_steps", num_inference_steps)
        super().set_timesteps(num_inference_steps, device)
        self.timesteps = self.timesteps[:num_inference_steps]  # see `set_steps`

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Song et al. 2020, eq. 12, to the next lower time step; arguments and settings as in diffusers' DDIM."""
        if self.num_inference_steps is None:
            raise ValueError("the scheduler has no time steps yet: call set_timesteps first")
        if generator is not None and variance_noise is not None:
            raise ValueError("give either `generator` or `variance_noise`")
        t = int(timestep)
        lower = self.timesteps[self.timesteps < t]
        following = int(lower.max()) if len(lower) else -1
        signal = self.alphas_cumprod[t]
        next_signal = self.alphas_cumprod[following] if following >= 0 else self.final_alpha_cumprod
        clean, noise = self._parts(model_output, sample, signal)
        if self.config.thresholding:
            clean = self._threshold_sample(clean)
        elif self.config.clip_sample:
            clean = clean.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        if use_clipped_model_output:
            noise = (sample - signal**0.5 * clean) / (1 - signal) ** 0.5
        sigma = eta * self._get_variance(t, following) ** 0.5
        rest = (1 - next_signal - sigma**2).clamp(min=0)  # without any signal rounding may leave less than none
        moved = next_signal**0.5 * clean + rest**0.5 * noise
        if eta > 0:
            if variance_noise is None:
                shape, device, dtype = model_output.shape, model_output.device, model_output.dtype
                variance_noise = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
            moved = moved + sigma * variance_noise
        return DDIMSchedulerOutput(moved, clean) if return_dict else (moved, clean)

    def _parts(self, output: Tensor, sample: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latent and the noise that an output stands for, by `prediction_type`."""
        kind, rest = self.config.prediction_type, 1 - signal
        if kind == "epsilon":
            return (sample - rest**0.5 * output) / signal**0.5, output
        if kind == "sample":
            return output, (sample - signal**0.5 * output) / rest**0.5
        if kind == "v_prediction":
            return signal**0.5 * sample - rest**0.5 * output, signal**0.5 * output + rest**0.5 * sample
        raise ValueError(f"prediction_type {kind!r} is none of epsilon, sample, v_prediction")


def ddim_scheduler() -> SpacedDDIMScheduler:
    """DDIM (Song et al. 2020) on the training schedule, starting from its last step; the paper takes 100 steps."""
    return SpacedDDIMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)


def dpm_solver_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ 2M (Lu et al. 2022), made for about 20 steps."""
    return DPMSolverMultistepScheduler(**DDPM, algorithm_type="dpmsolver++", timestep_spacing="trailing")


def ancestral_scheduler() -> DDPMScheduler:
    """Ancestral sampling (Ho et al. 2020) on DDIM's steps, for models that predict the noise alone."""
    return DDPMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)


def flow_euler_scheduler(shift: float = 1.0) -> FlowMatchEulerDiscreteScheduler:
    """Euler's method along a rectified flow; `shift` is that of training (`RectifiedFlow`)."""
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def flow_heun_scheduler(shift: float = 1.0) -> FlowMatchHeunDiscreteScheduler:
    """Heun's method along a rectified flow: second order, so N steps call the model 2 N - 1 times."""
    return FlowMatchHeunDiscreteScheduler(shift=shift)


def flow_dpm_solver_scheduler(shift: float = 1.0) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ 2M along a rectified flow: second order, with one call of the model a step.

    Where the velocity is known exactly, of normal data of spread 0.5, 10 of its steps end closer than 50 of Euler's.
    """
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return DPMSolverMultistepScheduler(**flow, algorithm_type="dpmsolver++")


FEW_STEPS = "dpm-solver++"  # the sampler of either objective where steps are to be few
SAMPLERS = {
    "ddpm": {"ddim": ddim_scheduler, FEW_STEPS: dpm_solver_scheduler, "ancestral": ancestral_scheduler},
    "rectified_flow": {
        FEW_STEPS: flow_dpm_solver_scheduler,
        "flow-euler": flow_euler_scheduler,
        "flow-heun": flow_heun_scheduler,
    },
}  # objective -> name -> scheduler; the first is the default
STEPS = {"ddpm": 100, "rectified_flow": 20}  # objective -> steps where no number is given; the paper takes 100
GUIDANCE = {"ddpm": 4.0, "rectified_flow": 2.0}  # weight where none is given: the paper's; more darkens a flow's lungs


def default_scheduler(model: torch.nn.Module) -> SchedulerMixin:
    """The sampler of a model when none is named: the paper's DDIM, or DPM-Solver++ with the shift of a flow.

    A distilled flow knows where each of its steps ends: Euler's method takes them.
    """
    if model.objective == "ddpm":
        return ddim_scheduler()
    return (flow_euler_scheduler if model.distilled_steps else flow_dpm_solver_scheduler)(model.flow_shift)


def default_steps(model: torch.nn.Module) -> int:
    """How many steps a model takes where no number is given."""
    return model.distilled_steps or STEPS[model.objective]


def default_guidance(model: torch.nn.Module) -> float:
    """The weight of guidance where none is given; 1 is none."""
    return 1.0 if model.distilled_steps else GUIDANCE[model.objective]


def scheduler_named(name: str, current: SchedulerMixin) -> SchedulerMixin:
    """The scheduler of a name in `SAMPLERS`, for the model that `current` samples; a flow's keeps its shift.

    Raises:
        ValueError: for an unknown name, or if it samples models of another objective.
    """
    objective = samples_objective(current)
    fitting = SAMPLERS[objective]
    if name not in fitting:
        raise ValueError(f"sampler {name!r} cannot sample these weights ({objective}): use {', '.join(fitting)}")
    if objective == "ddpm":
        return fitting[name]()
    return fitting[name](current.config.get("flow_shift" if _is_dpm_solver(current) else "shift", 1.0))


def few_steps(current: SchedulerMixin) -> SchedulerMixin:
    """DPM-Solver++ for the model that `current` samples, with its noise schedule, or a flow's shift."""
    if samples_objective(current) == "rectified_flow":
        return scheduler_named(FEW_STEPS, current)
    return DPMSolverMultistepScheduler.from_config(current.config, algorithm_type="dpmsolver++")


def samples_objective(scheduler: SchedulerMixin) -> str:
    """The objective that a scheduler samples, a name in `models.transformer.OBJECTIVES`."""
    flow = isinstance(scheduler, (FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler))
    flow = flow or scheduler.config.get("prediction_type") == "flow_prediction"  # as DPM-Solver's may be
    return "rectified_flow" if flow else "ddpm"


def set_steps(scheduler: SchedulerMixin, count: int, device: torch.device) -> None:
    """Have a scheduler take `count` steps: at least 1, and no more than it was trained with where those are discrete.

    By default diffusers' flow Euler reaches time 0.001 one step early and spends the last step on the rest. Here its
    steps are evenly spaced from 1 to 0 (before the shift), as in diffusers' Flux pipeline. Its flow Heun would shift
    the last time, which it keeps shifted, a second time. Its DPM-Solver++ would cut a flow's times to whole ones, so
    that the model is asked for another time than the step is taken from. Its trailing spacing has a step too many, -1,
    for 62 numbers of steps (61, 103, ...), because it adds up rounded fractions. Its PNDM takes each step to end
    `num_train_timesteps // count` lower, wherever the next one begins.

    Raises:
        ValueError: if the scheduler cannot take so many steps.
    """
    check_count("num_inference_steps", count)
    trained = scheduler.config.num_train_timesteps
    if samples_objective(scheduler) == "ddpm" and count > trained:
        raise ValueError(f"num_inference_steps must be at most {trained}, the model's steps in training, not {count}")
    _check_pndm(scheduler, count)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / count, count), device=device)
        return
    if isinstance(scheduler, FlowMatchHeunDiscreteScheduler):
        scheduler.sigma_min = (np.float32(1) / trained).item()
    scheduler.set_timesteps(count, device=device)
    if _is_dpm_solver(scheduler) and scheduler.config.use_flow_sigmas:
        scheduler.timesteps = (trained * scheduler.sigmas[:-1]).to(device)
    if scheduler.timesteps[-1] < 0:
        if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ValueError(f"{type(scheduler).__name__} makes no {count} steps: take one step more or less")
        times = list(dict.fromkeys(scheduler.timesteps.tolist()))  # Heun's names each twice
        scheduler.set_timesteps(timesteps=times[:count], device=device)


def _check_pndm(scheduler: SchedulerMixin, count: int) -> None:
    """Raise ValueError for too few steps for PNDM, or for a number that leaves out so much that noise stays."""
    if isinstance(scheduler, PNDMScheduler) and not scheduler.config.skip_prk_steps and count < FIRST_STEPS:
        raise ValueError(
            f"PNDMScheduler takes no fewer than {FIRST_STEPS} steps: take more, or make it with skip_prk_steps=True"
        )
    trained = scheduler.config.num_train_timesteps
    gaps = isinstance(scheduler, PNDMScheduler) and scheduler.config.timestep_spacing != "leading"
    if gaps and trained % count > trained * MAX_GAP:
        raise ValueError(
            f"PNDMScheduler leaves noise in {count} steps: take a number that divides {trained}, or make it with "
            "timestep_spacing='leading'"
        )


def _is_dpm_solver(scheduler: SchedulerMixin) -> bool:
    return isinstance(scheduler, DPMSolverMultistepScheduler)


def uses_variance(scheduler: SchedulerMixin) -> bool:
    """Whether a scheduler reads the variance that a model may predict beside the noise.

    Many of diffusers' schedulers have `variance_type` among their settings, or inherit it through `from_config`, and
    either fail on such an output or cut it to three channels; they are given the noise alone.
    """
    reads = isinstance(scheduler, (DDPMScheduler, DDPMParallelScheduler))
    return reads and scheduler.config.variance_type in LEARNED


def ignore_variance(scheduler: SchedulerMixin) -> None:
    """Keep a scheduler that is given the noise alone from cutting a variance off it."""
    if not uses_variance(scheduler) and scheduler.config.get("variance_type") in LEARNED:
        scheduler.register_to_config(variance_type=None)


def released_scheduler() -> DDPMScheduler:
    """The released code's ancestral sampler: N steps from 999 to 0, both included, with the learned variance."""
    return DDPMScheduler(**DDPM, timestep_spacing="linspace", variance_type="learned_range", clip_sample=False)


class ReleasedDDIMScheduler(SpacedDDIMScheduler):
    """The released code's DDIM, on the same steps as its ancestral sampler whatever the configuration's spacing."""

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        self.register_to_config(timestep_spacing="linspace")
        super().set_timesteps(num_inference_steps, device)


def spaced(scheduler: SchedulerMixin) -> SchedulerMixin:
    """diffusers' own DDIM, or its parallel one, as a `SpacedDDIMScheduler` of the same settings; others as they are."""
    theirs = type(scheduler) in (DDIMScheduler, DDIMParallelScheduler)
    return SpacedDDIMScheduler.from_config(scheduler.config) if theirs else scheduler
