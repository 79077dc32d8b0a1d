"""What a model learns to predict: the noise on DDPM's steps, or the velocity of a rectified flow.

An objective defines the distribution of times, the noisy latent at a time, the model's target and the weight of its
error. Everywhere x0 are clean latents and eps is noise, float [B, C, h, w]; t are times as the model gets them, [B]:
whole steps 0..999 for DDPM, 1000 times the time 0..1 for a rectified flow.
"""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

TIMES = 1000  # DDPM's steps, and what diffusers' flow-matching schedulers multiply a time with
DDPM = dict(num_train_timesteps=TIMES, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)


class NoisePrediction:
    """The paper's objective (Methods, eq. 1; Ho et al. 2020): the noise, at steps of a linear schedule, all alike.

    noisy_weight: the largest weight of a step's error, see `step_weights`; 1 weighs all steps equally.
    """

    def __init__(self, noisy_weight: float = 1.0):
        self.scheduler = DDPMScheduler(**DDPM)
        self.weights = step_weights(self.scheduler.alphas_cumprod, noisy_weight)

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, TIMES, (n,), generator=generator)

    def noisy(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return self.scheduler.add_noise(x0, eps, t)

    def target(self, x0: Tensor, eps: Tensor) -> Tensor:
        return eps

    def weight(self, t: Tensor) -> Tensor:
        return self.weights[t]

    def noise(self, prediction: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies."""
        return prediction


class RectifiedFlow:
    """The velocity of a straight path from latent to noise (Liu et al. 2022), as Esser et al. 2024 train it.

    mean, scale: of the logit-normal distribution of times (their section 3.1): most lie in the middle of the path,
        where the velocity is hardest to predict.
    shift: moves times towards noise (their eq. 23), because the same noise hides less of an image that has more pixels.
        It is the image's side divided by that of the resolution for which 1 is right.
    """

    def __init__(self, mean: float = 0.0, scale: float = 1.0, shift: float = 1.0):
        self.mean, self.scale, self.shift = mean, scale, shift

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        time = torch.sigmoid(self.mean + self.scale * torch.randn(n, generator=generator))
        return TIMES * self.shift * time / (1 + (self.shift - 1) * time)

    def noisy(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        time = _fraction(t)
        return (1 - time) * x0 + time * eps

    def target(self, x0: Tensor, eps: Tensor) -> Tensor:
        return eps - x0  # the derivative of `noisy` with respect to time, constant along the path

    def weight(self, t: Tensor) -> Tensor:
        return torch.ones(len(t))  # the distribution of times is the weighting

    def noise(self, prediction: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies: the end of its straight path."""
        return noisy + (1 - _fraction(t)) * prediction


def random_stretch(paths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Where a stretch of each path starts, the velocity that leads to its end in one step, and the time at the start.

    Args:
        paths: [B, K + 1, C, h, w], at K + 1 evenly spaced times from noise to latent.
    """
    stretches, each = paths.shape[1] - 1, torch.arange(len(paths))
    k = torch.randint(0, stretches, (len(paths),), generator=generator)
    start, end = paths[each, k], paths[each, k + 1]
    return start, (start - end) * stretches, TIMES * (1 - k / stretches)


def step_weights(alphas_cumprod: Tensor, largest: float) -> Tensor:
    """Weight of the noise error at each time step, with mean 1: proportional to min(1 + 1 / SNR, `largest`).

    Equal weights (`largest` 1, the paper) train little on the noisy steps, where layout and findings are decided but
    the error is small whatever the model does; long training makes up for it. 1 + 1 / SNR corresponds to an unweighted
    error of the velocity (Salimans & Ho 2022).
    """
    # 1 + 1 / SNR with SNR = a / (1 - a) is 1 / a.
    weights = (1 / alphas_cumprod).clamp(max=largest)
    return weights / weights.mean()


def _fraction(t: Tensor) -> Tensor:
    return (t / TIMES)[:, None, None, None]  # [B] -> [B, 1, 1, 1]
