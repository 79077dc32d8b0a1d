"""The samplers: the paper's DDIM, one for few steps, and those of the released code."""

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

from chexgen_lib.training.trainer import DDPM


def ddim_scheduler() -> DDIMScheduler:
    """DDIM (Song et al. 2020) on the schedule of training, starting from its last step; the paper takes 100 steps."""
    return DDIMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)


def dpm_solver_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ 2M (Lu et al. 2022), made for about 20 steps."""
    return DPMSolverMultistepScheduler(**DDPM, algorithm_type="dpmsolver++", timestep_spacing="trailing")


def ancestral_scheduler() -> DDPMScheduler:
    """Ancestral sampling (Ho et al. 2020) on DDIM's steps, for models that predict the noise alone."""
    return DDPMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)


def released_scheduler() -> DDPMScheduler:
    """The released code's ancestral sampler: N steps from 999 to 0, both kept, with the variance that was learned."""
    return DDPMScheduler(**DDPM, timestep_spacing="linspace", variance_type="learned_range", clip_sample=False)


class ReleasedDDIMScheduler(DDIMScheduler):
    """The released code's DDIM (eta 0) on the same steps as its ancestral sampler.

    diffusers' DDIM takes the next step to be 1000 // N lower, which these steps, rounded from an even spacing, are not.
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
