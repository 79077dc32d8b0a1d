"""Editing along a rectified flow: invert a film's latents, then return to another request.

A flow's velocity v(x, t) leads from latents (t = 0) to noise (t = 1) and back. Inversion follows it from the film's
latents under the film's own request. On the way back each step is the recorded one, reversed, plus what the new request
adds to the old one's velocity, so that no change returns the film whatever the number of steps (as Ju et al. 2024,
*Direct inversion*, do for diffusion). `Velocity` functions take x [N, C, h, w] and the number of a time in `times`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from chexgen_lib.checks import check_count

Velocity = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Path:
    """A film's way into noise.

    Attributes:
        times: [K + 1] from 0, rising.
        states: latents at each time, each [N, C, h, w].
        velocities: of the film's own request there.
    """

    times: Sequence[float]
    states: list[Tensor]
    velocities: list[Tensor]


def flow_times(steps: int, strength: float, shift: float = 1.0) -> list[float]:
    """Times of an edit: from 0 up to the share of noise `strength`, in `steps` steps that are even before the shift.

    Raises:
        ValueError: for no steps, or a strength outside 0..1.
    """
    check_count("num_inference_steps", steps)
    if not (isinstance(strength, Real) and 0 < strength <= 1):
        raise ValueError(
            f"strength must be above 0 and at most 1, the share of noise that is reached, not {strength!r}"
        )
    top = strength / (shift - (shift - 1) * strength)  # what the shift moves to `strength`
    even = [top * k / steps for k in range(steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in even]


def invert(velocity: Velocity, latents: Tensor, times: Sequence[float]) -> Path:
    """Follow the flow from clean latents to the last of `times` by Euler's method: K + 1 calls for K steps."""
    states, velocities = [latents], []
    for k, t in enumerate(times):
        velocities.append(velocity(states[-1], k))
        if k + 1 < len(times):
            states.append(states[-1] + (times[k + 1] - t) * velocities[-1])
    return Path(times, states, velocities)


def return_along(path: Path, velocity: Velocity, change: Tensor | float = 1.0) -> Tensor:
    """Latents where the way back along `path` ends under the new request's `velocity`: K calls for K steps.

    change: share of the change that is let in, 0..1, of all or of each place, [N, 1, h, w].
    """
    latents = path.states[-1]
    for k in range(len(path.times) - 1, 0, -1):
        step = path.times[k] - path.times[k - 1]
        here, before = path.states[k], path.states[k - 1]
        moved = latents - here - step * (velocity(latents, k) - path.velocities[k])
        latents = before + change * moved
    return latents


def against(wanted: Velocity, source: Velocity, weight: float | Sequence[float]) -> Velocity:
    """Guidance by what distinguishes two requests: source + weight x (wanted - source); 1 takes `wanted` alone.

    weight: of all, or of each of N.
    """
    if weight == 1:
        return wanted

    def guided(x: Tensor, k: int) -> Tensor:
        there = source(x, k)
        return there + torch.as_tensor(weight).to(x).reshape(-1, 1, 1, 1) * (wanted(x, k) - there)

    return guided


def noised(latents: Tensor, noise: Tensor, time: float) -> Tensor:
    """Latents at a time of the straight path to `noise`."""
    return torch.lerp(latents, noise, time)


def sample_down(velocity: Velocity, start: Tensor, times: Sequence[float]) -> Tensor:
    """Follow the flow from `start`, at the last of `times`, to clean latents by Euler's method: K calls."""
    latents = start
    for k in range(len(times) - 1, 0, -1):
        latents = latents - (times[k] - times[k - 1]) * velocity(latents, k)
    return latents
