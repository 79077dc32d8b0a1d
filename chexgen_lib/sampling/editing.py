"""Editing given films: `ChexGenPipeline.edit`, and what it checks and encodes before it follows the flow."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from chexgen_lib.checks import check_weights
from chexgen_lib.descriptions.changes import changed, prompts
from chexgen_lib.diffusion.objectives import TIMES
from chexgen_lib.images import ImageError, check, from_uint8, unusual
from chexgen_lib.models.autoencoder import decode, encode
from chexgen_lib.models.metadata import ATTRIBUTES
from chexgen_lib.records import FRONTAL
from chexgen_lib.sampling.arguments import one_each
from chexgen_lib.sampling.guidance import Inputs
from chexgen_lib.sampling.inversion import Velocity, against, flow_times, invert, return_along
from chexgen_lib.sampling.output import ChexGenPipelineOutput, as_output

STRENGTH, STEPS, GUIDANCE = 0.8, 8, 1.5  # of an edit, unless others are asked for
FAINT = 2.5 / 255  # a change of which half is left out: nobody sees it, and where nothing should change there are many
READ = (*ATTRIBUTES, "details")  # of a record, by a metadata encoder
Images = PIL.Image.Image | np.ndarray | Sequence[PIL.Image.Image | np.ndarray]


class UnreadError(ValueError):
    """A change of which nothing that the model reads says anything."""


@dataclass(frozen=True)
class Requests:
    """What N films show, or are to show, as a model reads it: prompts, and rows of metadata (None: it reads none)."""

    prompts: list[str] | None
    metadata: list[dict] | None


class Editing:
    """The part of `ChexGenPipeline` that edits films; a model of a rectified flow can."""

    def check_invertible(self) -> None:
        """Raise ValueError for a model that cannot edit films."""
        if self.transformer.objective != "rectified_flow":
            raise ValueError(
                f"only a rectified flow can be inverted, this model was trained as {self.transformer.objective}"
            )
        if self.distilled_steps is not None:
            raise ValueError("the steps of a distilled model cannot be inverted: edit with the model it learned from")

    @torch.inference_mode()
    def edit(  # noqa: PLR0913  # as diffusers' pipelines
        self,
        image: Images,
        change: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        record: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        prompt: str | Sequence[str] | None = None,
        source_prompt: str | Sequence[str] | None = None,
        strength: float = STRENGTH,
        num_inference_steps: int = STEPS,
        guidance_scale: float | Sequence[float] = GUIDANCE,
        keep_mask: np.ndarray | None = None,
        keep_detail: bool = True,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ChexGenPipelineOutput | tuple:
        """Films as they would look with a change, everything else as it is (`sampling.inversion`).

            pipeline.edit(film, {"Effusion": {"side": "left"}}, {"view": "PA", "age": 55, "sex": "F"}).images[0]

        A film takes 2 x steps + 1 calls of the model, with guidance 3 x steps + 1.

        Args:
            image: grey films of the pipeline's `image_size`: PIL, uint8, or floats in 0..1, [S, S] or [N, S, S].
            change, record: what is asked, and what is known of the film, as `descriptions.changes.changed` takes them:
                one, or a list with one for each film. A model reads both as the grammar describes them, as
                metadata, or in both ways, whatever it was trained on.
            prompt, source_prompt: instead of both, texts of the film as it should become and as it is.
            strength: share of noise to which a film is inverted, above 0, at most 1; more lets more change.
            num_inference_steps: each way.
            guidance_scale: weight of what distinguishes the requests (`inversion.against`), or one for each film: how
                much it takes depends on what is changed (`experiments.counterfactuals.calibration`).
            keep_mask: bool [S, S] or [N, S, S], true where a film must stay as it is.
            keep_detail: add to the film what the edit adds to its reconstruction (`added`), so that it keeps what the
                autoencoder loses; else return the edit as it is decoded.
            output_type: "pil", "np" or "pt", as in `__call__`.

        Raises:
            ImageError: for a film that is no radiograph, or of another size, colour or range.
            ChangeError: for a change that the record cannot be given.
            UnreadError: for a change that this model does not read.
            ValueError: if the model is no flow, or another argument cannot be used.
        """
        self.check_invertible()
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be pil, np or pt, not {output_type!r}")
        films = check_films(image, self.image_size)
        source, wanted = self._requests(len(films), change, record, prompt, source_prompt)
        _check_radiographs(films, record)
        kept = _check_mask(keep_mask, films.shape)
        if isinstance(guidance_scale, Sized) and not isinstance(guidance_scale, str):
            guidance_scale = one_each("guidance_scale", guidance_scale, len(films), False)
        for weight in guidance_scale if isinstance(guidance_scale, list) else [guidance_scale]:
            check_weights(guidance_scale=weight)
        times = flow_times(num_inference_steps, strength, self.transformer.flow_shift)
        latents = encode(self.vae, films)[0].to(self._execution_device)
        own = self.velocity(source, times)
        change_in = 1.0 if kept is None else _change_share(kept, latents)
        edited = return_along(
            invert(own, latents, times), against(self.velocity(wanted, times), own, guidance_scale), change_in
        )
        images = decode(self.vae, edited)
        if keep_detail:
            images = added(films, images - decode(self.vae, latents))
        if kept is not None:
            images = np.where(kept, films, images)
        self.maybe_free_model_hooks()
        images = as_output(images, output_type)
        return ChexGenPipelineOutput(images=images) if return_dict else (images,)

    def velocity(self, requests: Requests, times: Sequence[float], guidance_scale: float = 1.0) -> Velocity:
        """The flow's velocity under `requests` at latents x [N, C, h, w] and the k-th of `times`.

        guidance_scale: of classifier-free guidance, as in `__call__`; 1 is without, at half the cost.
        """
        scales = None if guidance_scale == 1 else (guidance_scale, {})
        states, mask = self.encode_prompt(requests.prompts, requests.metadata)
        codes = self._encode_metadata(len(states), requests.metadata, {})
        device, dtype = self._execution_device, self.transformer.dtype
        given = [None if x is None else x.to(device) for x in (states.to(dtype), mask, codes)]
        inputs = Inputs(self.transformer, *given, None, 0.0, self.vae.config.latent_channels)
        tables = self.transformer.encode_time(torch.tensor(times, device=device) * TIMES)
        return lambda x, k: inputs.predict(x.to(dtype), tables[k : k + 1], scales)

    def _requests(self, count: int, change, record, prompt, source_prompt) -> tuple[Requests, Requests]:
        """What the films show, and what they are to show."""
        if (change is None) != (record is None) or (prompt is None) != (source_prompt is None):
            raise ValueError("give `change` and the film's `record`, or `prompt` and `source_prompt`")
        if (change is None) == (prompt is None):
            raise ValueError("give either `change` and `record`, or `prompt` and `source_prompt`")
        if prompt is not None:
            if self.text_encoder is None:
                raise ValueError("this model reads metadata alone: give `change` and `record`")
            texts = [
                one_each(n, t, count, isinstance(t, str))
                for n, t in (("source_prompt", source_prompt), ("prompt", prompt))
            ]
            return Requests(texts[0], None), Requests(texts[1], None)
        records = one_each("record", record, count, isinstance(record, Mapping))
        asked = one_each("change", change, count, isinstance(change, Mapping))
        targets = [changed(row, one) for row, one in zip(records, asked, strict=True)]
        before, after = self.requests_of(records), self.requests_of(targets)
        _check_told_apart(before, after, asked)
        return before, after

    def requests_of(self, records: Sequence[Mapping[str, Any]]) -> Requests:
        """What this model reads of Records: their descriptions, their metadata, or both.

        Of metadata a source that it does not know is left out, as in training.
        """
        # A metadata encoder ignores what it does not read in a row that has an id.
        rows = [{"image_id": "film"} | dict(record) for record in records]
        texts, sources = None if self.text_encoder is None else prompts(rows), self.transformer.metadata_sources
        if sources is None:
            return Requests(texts, None)
        return Requests(texts, [row if row.get("source") in sources else row | {"source": None} for row in rows])


def added(films: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Films with what an edit changes of their reconstructions, both [N, S, S], in 0..1.

    Of a change the share p / (p + q) is taken, p the mean square of the changes around it, q that of `FAINT`: what is
    as faint as that is an inaccuracy of the inversion more often than a part of the change.
    """
    around = gaussian_filter(np.square(change), (0, change.shape[1] / 64, change.shape[2] / 64))
    return np.clip(films + around / (around + FAINT**2) * change, 0, 1)


def check_films(image: Images, size: int) -> np.ndarray:
    """Films as float32 [N, size, size] in 0..1; ImageError, naming the film, for another size, colour or range."""
    several = isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim > 2)
    films = list(image) if several else [image]
    if not films:
        raise ImageError("there is no film to edit: give at least one")
    return np.stack([check_film(film, size, f"film {number}") for number, film in enumerate(films)])


def check_film(film: PIL.Image.Image | np.ndarray, size: int, name: str) -> np.ndarray:
    """A film as float32 [size, size] in 0..1; ImageError, which begins with `name`, as of `check_films`."""
    if isinstance(film, PIL.Image.Image):
        if film.mode != "L":
            raise ImageError(
                f"{name}: has the mode {film.mode}, a film is grey of 8 bits: convert it with convert('L')"
            )
        film = np.asarray(film)
    film = np.asarray(film)
    if film.ndim != 2:
        raise ImageError(f"{name}: needs one grey channel [H, W], got shape {film.shape}")
    if film.shape != (size, size):
        width, height = film.shape[::-1]
        raise ImageError(
            f"{name}: has {width} x {height} pixels, this model edits {size} x {size}: make its largest square that "
            f"small, in Python by images.resize(images.read_image(file), {size}), and images.write_png"
        )
    return check(from_uint8(film) if film.dtype == np.uint8 else film, name)


def _check_radiographs(films: np.ndarray, record: Mapping | Sequence[Mapping] | None) -> None:
    """Raise ImageError for a film that shows no radiograph, or a negative."""
    records = one_each("record", record or {}, len(films), record is None or isinstance(record, Mapping))
    for number, (film, known) in enumerate(zip(films, records, strict=True)):
        check_radiograph(film, known, f"film {number}")


def check_radiograph(film: np.ndarray, record: Mapping[str, Any], name: str) -> None:
    """Raise ImageError, which begins with `name`, for a film [S, S] that shows no radiograph, or a negative."""
    if reason := unusual(film, record.get("view") in FRONTAL):
        raise ImageError(f"{name} is no radiograph to edit: {reason}")


def _check_mask(mask: np.ndarray | None, shape: tuple[int, int, int]) -> np.ndarray | None:
    """bool [N, S, S] of a mask of one film or of each."""
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape not in (shape, shape[1:]):
        raise ValueError(f"keep_mask: needs bool {shape[1:]} or {shape}, got {mask.dtype} {mask.shape}")
    return np.broadcast_to(mask, shape)


def _change_share(kept: np.ndarray, latents: Tensor) -> Tensor:
    """Where latents may change, [N, 1, h, w]: wherever one of their pixels may."""
    free = torch.from_numpy(~kept)[:, None].to(latents)
    return F.adaptive_max_pool2d(free, latents.shape[-2:])


def _check_told_apart(before: Requests, after: Requests, asked: Sequence[Mapping]) -> None:
    """Raise UnreadError for a change that the model does not read."""
    for number, change in enumerate(asked):
        texts = [r.prompts and r.prompts[number] for r in (before, after)]
        rows = [r.metadata and {k: r.metadata[number].get(k) for k in READ} for r in (before, after)]
        if texts[0] == texts[1] and rows[0] == rows[1]:
            raise UnreadError(
                f"film {number}: nothing that this model reads says {dict(change)}: it cannot make this change"
            )
