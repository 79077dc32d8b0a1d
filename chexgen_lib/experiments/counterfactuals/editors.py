"""Ways to edit a film with one model, at equal cost: calls of the model for each film.

| editor | what it does with K steps each way |
|---|---|
| inversion | `ChexGenPipeline.edit`: invert, return along the same path with the change; 3 K + 1 calls |
| inversion, decoded | the same without the film's own detail |
| plain inversion | invert, sample from where that ends as if nothing else were known; 3 K + 1 calls |
| FlowEdit | no inversion: differences of velocities at noise drawn anew (Kulikov et al. 2025); 3 K calls |
| SDEdit | noise the film to the same strength and sample (Meng et al. 2022); 3 K calls |
| fresh sample | the new request from the noise of the film's seed, the film unseen; 3 K calls |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from chexgen_lib.images import from_uint8, to_uint8
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import decode, encode
from chexgen_lib.pools.generate import fingerprint, image_seed
from chexgen_lib.sampling.editing import Requests, added
from chexgen_lib.sampling.inversion import Velocity, against, flow_times, invert, noised, return_along, sample_down
from chexgen_lib.sampling.pipeline import ChexGenPipeline


@dataclass(frozen=True)
class EditSettings:
    """How films are edited.

    Attributes:
        steps, strength, guidance_scale: as `ChexGenPipeline.edit` takes them; the last of all films, or of each.
        sampling_guidance: of classifier-free guidance, for SDEdit and the fresh sample.
        batch_size: films at a time.
        seed: of noise, with the film's image_id.
    """

    steps: int
    strength: float
    guidance_scale: float | tuple[float, ...]
    sampling_guidance: float
    batch_size: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Films to edit, float32 [N, S, S], their latents, the requests before and after, and seeds of their noise."""

    pipeline: ChexGenPipeline
    films: np.ndarray
    latents: Tensor
    source: Requests
    wanted: Requests
    seeds: Sequence[int]
    settings: EditSettings

    def times(self, steps: int | None = None, strength: float | None = None) -> list[float]:
        """From 0 up to the strength; by default those of the settings."""
        s, shift = self.settings, self.pipeline.transformer.flow_shift
        return flow_times(steps or s.steps, strength or s.strength, shift)

    def velocities(self, times: list[float]) -> tuple[Velocity, Velocity]:
        """Under the film's own request, and under the new one guided by it."""
        own = self.pipeline.velocity(self.source, times)
        return own, against(self.pipeline.velocity(self.wanted, times), own, self.settings.guidance_scale)

    def noise(self, stream: int = 0) -> Tensor:
        """[N, C, h, w] of the films' seeds."""
        generators = [torch.Generator().manual_seed(seed + stream) for seed in self.seeds]
        draws = [torch.randn(self.latents.shape[1:], generator=generator) for generator in generators]
        return torch.stack(draws).to(self.latents)

    def decoded(self, latents: Tensor) -> np.ndarray:
        """Images [N, S, S] of latents."""
        return decode(self.pipeline.vae, latents)


def _inversion(batch: Batch) -> np.ndarray:
    return added(batch.films, _inversion_decoded(batch) - batch.decoded(batch.latents))


def _inversion_decoded(batch: Batch) -> np.ndarray:
    times = batch.times()
    own, guided = batch.velocities(times)
    return batch.decoded(return_along(invert(own, batch.latents, times), guided))


def _plain_inversion(batch: Batch) -> np.ndarray:
    times = batch.times()
    own, guided = batch.velocities(times)
    return batch.decoded(sample_down(guided, invert(own, batch.latents, times).states[-1], times))


def _flow_edit(batch: Batch) -> np.ndarray:
    times = batch.times()
    own, guided = batch.velocities(times)
    latents = batch.latents
    for k in range(len(times) - 1, 0, -1):
        noisy = noised(batch.latents, batch.noise(k), times[k])
        change = guided(latents + noisy - batch.latents, k) - own(noisy, k)
        latents = latents - (times[k] - times[k - 1]) * change
    return batch.decoded(latents)


def _sdedit(batch: Batch) -> np.ndarray:
    times = batch.times(3 * batch.settings.steps // 2)
    start = noised(batch.latents, batch.noise(), times[-1])
    wanted = batch.pipeline.velocity(batch.wanted, times, batch.settings.sampling_guidance)
    return batch.decoded(sample_down(wanted, start, times))


def _fresh(batch: Batch) -> np.ndarray:
    times = batch.times(3 * batch.settings.steps // 2, strength=1.0)
    wanted = batch.pipeline.velocity(batch.wanted, times, batch.settings.sampling_guidance)
    return batch.decoded(sample_down(wanted, batch.noise(), times))


INVERSION, DECODED, PLAIN = "inversion", "inversion, decoded", "plain inversion"
CALIBRATED = "inversion, calibrated"  # with a weight for each attribute (`calibration`)
EDITORS: dict[str, Callable[[Batch], np.ndarray]] = {
    INVERSION: _inversion,
    DECODED: _inversion_decoded,
    PLAIN: _plain_inversion,
    "FlowEdit": _flow_edit,
    "SDEdit": _sdedit,
    "fresh sample": _fresh,
}


def calls(editor: str, settings: EditSettings) -> int:
    """Calls of the model for each film."""
    if editor not in (INVERSION, DECODED, PLAIN, "FlowEdit"):
        return 3 * settings.steps // 2 * (1 if settings.sampling_guidance == 1 else 2)
    there, back = settings.steps + (editor != "FlowEdit"), 1 if settings.guidance_scale == 1 else 2
    return there + back * settings.steps


def edit(
    pipeline: ChexGenPipeline,
    editor: str,
    films: np.ndarray,
    source: Sequence[Mapping[str, Any]],
    wanted: Sequence[Mapping[str, Any]],
    settings: EditSettings,
    folder: str | Path,
) -> np.ndarray:
    """Films of the records `source`, uint8 [N, S, S], edited to those of `wanted`: uint8 [N, S, S], kept in `folder`.

    A change that the model does not read leaves a film as it is, for editors that invert it.
    """
    folder = kept(
        _edit,
        folder,
        {"pipeline": pipeline},
        generator=fingerprint(pipeline),
        editor=editor,
        films=films,
        source=[dict(record) for record in source],
        wanted=[dict(record) for record in wanted],
        settings=settings,
    )
    return np.load(folder / "edited.npy", allow_pickle=False)


def through_autoencoder(pipeline: ChexGenPipeline, films: np.ndarray) -> np.ndarray:
    """Films, uint8 [N, S, S], encoded and decoded: what the latents keep of them."""
    return to_uint8(decode(pipeline.vae, encode(pipeline.vae, from_uint8(films))[0]))


@torch.inference_mode()
def _edit(
    folder: Path,
    pipeline: ChexGenPipeline,
    generator: str,
    editor: str,
    films: np.ndarray,
    source: list[dict],
    wanted: list[dict],
    settings: EditSettings,
) -> None:
    """Fill the folder of `edit`; generator: the pipeline's fingerprint, for the key alone."""
    edited = []
    for start in tqdm(range(0, len(films), settings.batch_size), desc=editor, unit="batch"):
        rows = slice(start, start + settings.batch_size)
        own = from_uint8(films[rows])
        requests = [pipeline.requests_of(records[rows]) for records in (source, wanted)]
        seeds = [image_seed(record["image_id"], 0, settings.seed) for record in source[rows]]
        latents = encode(pipeline.vae, own)[0].to(pipeline.device)
        weights = settings.guidance_scale
        weights = weights[rows] if isinstance(weights, tuple) else weights
        batch = Batch(pipeline, own, latents, *requests, seeds, replace(settings, guidance_scale=weights))
        edited.append(to_uint8(np.clip(EDITORS[editor](batch), 0, 1)))
    np.save(folder / "edited.npy", np.concatenate(edited))
