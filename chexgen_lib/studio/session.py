"""A generator at work for one person: samples of requests, those that are kept, and their export."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import chexgen_lib
from chexgen_lib.diffusion.schedulers import default_guidance, default_steps
from chexgen_lib.export.images import SUFFIXES, save
from chexgen_lib.models.foundation import PACKAGED, SHIPPED, shipped_sha256
from chexgen_lib.models.loading import fastest_device, weights_sha256
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import replacing
from chexgen_lib.studio.request import Request


class Session:
    """Samples requests and remembers what was seen.

    Args:
        weights: "shipped", "shipped-distilled", or a folder that `pipeline.save_pretrained` wrote.

    Attributes:
        start: a request without findings, in as many steps and with the guidance that the model takes by default.
        kept: requests to export, in the order in which they were kept.

    Raises:
        ValueError: if the model reads no text.
    """

    def __init__(self, weights: str | Path = SHIPPED):
        self.pipeline = ChexGenPipeline.from_pretrained(weights).to(fastest_device())
        if self.pipeline.text_encoder is None:
            raise ValueError(f"{weights} reads no text, and the studio writes prompts: load another model")
        self.pipeline.set_progress_bar_config(disable=True)
        self.weights = _identity(weights)
        model = self.pipeline.transformer
        self.start = Request(steps=default_steps(model), guidance=default_guidance(model))
        self.kept: list[Request] = []
        self._seen: dict[Request, np.ndarray] = {}

    def sample(self, request: Request) -> np.ndarray:
        """The radiograph of a request, uint8 [H, W]; the same one whenever it is requested again.

        Raises:
            TextError: for a prompt that the model cannot read.
        """
        if request not in self._seen:
            images = self.pipeline(
                request.prompt,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                generator=torch.Generator().manual_seed(request.seed),
            ).images
            self._seen[request] = np.asarray(images[0])
        return self._seen[request]

    def keep(self, request: Request) -> None:
        """Put a request among the `kept` ones, once."""
        if request not in self.kept:
            self.kept.append(request)

    def recipe(self, request: Request) -> dict[str, Any]:
        """All that samples the image of a request again."""
        sampler = type(self.pipeline.scheduler).__name__
        return request.recipe() | {"sampler": sampler, "chexgen_lib": chexgen_lib.__version__} | self.weights

    def export(self, folder: str | Path, kind: str = "png") -> Path:
        """Write the kept images with their recipes and a manifest into a new folder, as `chexgen sample` does.

        Args:
            kind: "png" or "dicom".

        Raises:
            ValueError: if nothing is kept, the folder exists or the kind is neither.
        """
        folder = Path(folder)
        if kind not in SUFFIXES:
            raise ValueError(f"{kind!r} is none of {', '.join(SUFFIXES)}")
        if not self.kept:
            raise ValueError("nothing is kept: look at a sample and keep it")
        if folder.exists():
            raise ValueError(f"{folder} exists: name a new folder")
        rows = []
        with replacing(folder) as partial:
            for i, request in enumerate(self.kept):
                recipe = {"file": f"{i:03d}{SUFFIXES[kind]}"} | self.recipe(request)
                stated = {} if request.words else {"sex": request.sex, "age": request.age, "view": request.view}
                save(partial / recipe["file"], self.sample(request), recipe, stated)
                rows.append(recipe)
            pl.DataFrame(rows, infer_schema_length=None).write_csv(partial / "manifest.csv")
        return folder


def _identity(weights: str | Path) -> dict[str, str]:
    """What a recipe says of weights: sha256 and no path, which could name who works here; of a hub's their id."""
    if str(weights) in PACKAGED:
        return shipped_sha256(str(weights))
    return {"weights_sha256": weights_sha256(Path(weights))} if Path(weights).exists() else {"weights": str(weights)}
