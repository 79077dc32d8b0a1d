"""The samplers: the paper's DDIM, one for few steps, those of the released code, and two for rectified flows."""

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    SchedulerMixin,
)
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

from chexgen_lib.diffusion.objectives import DDPM


def ddim_scheduler() -> DDIMScheduler:
    """DDIM (Song et al. 2020) on the training schedule, starting from its last step; the paper takes 100 steps."""
    return DDIMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)


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


SAMPLERS = {
    "ddpm": {"ddim": ddim_scheduler, "dpm-solver++": dpm_solver_scheduler, "ancestral": ancestral_scheduler},
    "rectified_flow": {"flow-euler": flow_euler_scheduler, "flow-heun": flow_heun_scheduler},
}  # objective -> name -> scheduler


def scheduler_named(name: str, current: SchedulerMixin) -> SchedulerMixin:
    """The scheduler of a name in `SAMPLERS`, for the model that `current` samples; a flow's keeps its shift.

    Raises:
        ValueError: for an unknown name, or if it samples models of another objective.
    """
    objective = samples_objective(current)
    fitting = SAMPLERS[objective]
    if name not in fitting:
        raise ValueError(f"sampler {name!r} cannot sample these weights ({objective}): use {', '.join(fitting)}")
    return fitting[name](**({"shift": current.config.get("shift", 1.0)} if objective == "rectified_flow" else {}))


def samples_objective(scheduler: SchedulerMixin) -> str:
    """The objective that a scheduler samples, a name in `models.transformer.OBJECTIVES`."""
    flow = isinstance(scheduler, (FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler))
    flow = flow or scheduler.config.get("prediction_type") == "flow_prediction"  # as DPM-Solver's may be
    return "rectified_flow" if flow else "ddpm"


def set_steps(scheduler: SchedulerMixin, count: int, device: torch.device) -> None:
    """Set a scheduler to `count` steps, at least 1.

    By default diffusers' flow Euler reaches time 0.001 one step early and spends the last step on the rest. Here its
    steps are evenly spaced from 1 to 0 (before the shift), as in diffusers' Flux pipeline.
    """
    if count < 1:
        raise ValueError(f"num_inference_steps must be at least 1, not {count}")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / count, count), device=device)
    else:
        scheduler.set_timesteps(count, device=device)


def released_scheduler() -> DDPMScheduler:
    """The released code's ancestral sampler: N steps from 999 to 0, both included, with the learned variance."""
    return DDPMScheduler(**DDPM, timestep_spacing="linspace", variance_type="learned_range", clip_sample=False)


class ReleasedDDIMScheduler(DDIMScheduler):
    """The released code's DDIM (eta 0) on the same steps as its ancestral sampler.

    diffusers' DDIM assumes that the next step is 1000 // N lower, which fails for these steps, rounded from even
    spacing.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        self.num_inference_steps = num_inference_steps
        steps = np.linspace(0, self.config.num_train_timesteps - 1, num_inference_steps).round()[::-1].astype(np.int64)
        self.timesteps = torch.from_numpy(steps.copy()).to(device)

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Song et al. 2020, eq. 12 with sigma 0; the last step ends in the predicted clean latent."""
        at = (self.timesteps == timestep).nonzero().item()
        later = self.timesteps[at + 1 :]
        signal = self.alphas_cumprod[timestep]
        next_signal = self.alphas_cumprod[later[0]] if len(later) else torch.tensor(1.0)
        clean = (sample - (1 - signal).sqrt() * model_output) / signal.sqrt()
        moved = next_signal.sqrt() * clean + (1 - next_signal).sqrt() * model_output
        return DDIMSchedulerOutput(moved, clean) if return_dict else (moved, clean)
