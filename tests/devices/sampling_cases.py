"""What samples, edits, encodes and decodes, each on a device: its numbers."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline

from chexgen_lib.diffusion.schedulers import (
    ReleasedDDIMScheduler,
    ddim_scheduler,
    flow_euler_scheduler,
    flow_heun_scheduler,
    released_scheduler,
)
from chexgen_lib.experiments.counterfactuals import editors
from chexgen_lib.experiments.judge.entries import enter
from chexgen_lib.experiments.judge.reference import Films, Reference
from chexgen_lib.models.autoencoder import load_autoencoder, new_autoencoder
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.pools.trial import tried
from chexgen_lib.rehearsal import weights
from chexgen_lib.sampling.baseline import BaselinePipeline, load_baseline
from chexgen_lib.sampling.generators import GreyPipeline, Parts, open_generator
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from chexgen_lib.sampling.preview import preview
from chexgen_lib.training.autoencoder import reconstruct
from chexgen_lib.training.latent_cache import LatentCache
from tests.experiments.judge import toy

PERSON = {"age": 50, "sex": "F", "Effusion": 1}


def model(**changes) -> ChexGenTransformer:
    torch.manual_seed(0)
    transformer = ChexGenTransformer.of_size("ci", **{"sample_size": 4, "text_dim": 384} | changes).eval()
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer.requires_grad_(False)


def flow(**changes) -> ChexGenTransformer:
    return model(objective="rectified_flow", **changes)


def pipeline(transformer: torch.nn.Module, scheduler=None) -> ChexGenPipeline:
    pipe = assemble(transformer, "shipped", "minilm")
    if scheduler is not None:
        pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe, prompt: str | None = "Cardiomegaly.", **settings) -> np.ndarray:
    return pipe(
        prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np", **settings
    ).images


def on(transformer: torch.nn.Module, device: torch.device, scheduler=None, **settings) -> np.ndarray:
    return images(pipeline(transformer.to(device), scheduler), **settings)


def pictures(n: int = 3, *channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 32, 32, *channels), np.uint8)


def cached(device: torch.device) -> np.ndarray:
    frozen = load_autoencoder("shipped"), load_text_encoder("minilm")
    cache = LatentCache.of(pictures(), ["Effusion.", "Clear.", "No effusion."], *frozen, pictures(3, 3, seed=1))
    assert all(x.device.type == "cpu" for x in (cache.mean, cache.std, cache.states, cache.offsets, cache.condition))
    return np.concatenate([cache.mean.float().flatten(), cache.states.float().flatten(), cache.condition.flatten()])


def unet(device: torch.device) -> BaselineUNet:
    torch.manual_seed(0)
    return BaselineUNet.of_size("ci", (4, 4, 4), 384).eval().requires_grad_(False).to(device)


def moved(device: torch.device) -> np.ndarray:
    """A pipeline that is loaded from a folder, and then moved."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline(model()).to("cpu").save_pretrained(folder)
        pipe = ChexGenPipeline.from_pretrained(folder).to(device)
    pipe.set_progress_bar_config(disable=True)
    return images(pipe, num_images_per_prompt=2)


def opened(device: torch.device) -> np.ndarray:
    """A model of a run, as the judge and the audit open it, saved from where it is."""
    with tempfile.TemporaryDirectory() as folder:
        model().to(device).save_pretrained(folder)
        pipe = open_generator(folder)
    pipe.set_progress_bar_config(disable=True)
    return images(pipe)


def others(load: Callable, device: torch.device) -> np.ndarray:
    """Stable Diffusion's parts, as another group's generator."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = tried(lambda: load(weights.pipeline(Path(folder))), "other")
    pipe.set_progress_bar_config(disable=True)
    return images(pipe)


def of_any_class(folder: Path) -> GreyPipeline:
    return GreyPipeline(StableDiffusionPipeline.from_pretrained(folder, safety_checker=None))


def judged(device: torch.device) -> np.ndarray:
    """A model of a run, as the judge samples from it."""
    films = Films(asked := toy.records(2, "test", 0), toy.films(asked, 0))
    with tempfile.TemporaryDirectory() as folder:
        model(sample_size=8).to(device).save_pretrained(f"{folder}/model")
        entry = enter(
            f"{folder}/model", Reference(*[films] * 4), Path(folder) / "samples", Sampling(1, 2), False, Parts()
        )  # fmt: skip
    return entry.images / 255  # one grey level is a rounding


def adapter(base: ChexGenTransformer) -> ControlledTransformer:
    torch.manual_seed(0)
    controlled = ControlledTransformer.on(base, 1).eval().requires_grad_(False)
    torch.nn.init.normal_(controlled.controlnet[0].after_proj.weight, std=0.3)
    return controlled


def adapted(device: torch.device) -> np.ndarray:
    return on(adapter(model().to(device)), device, mask={"lungs": np.tri(32) > 0}, boxes=[])


def pool(device: torch.device) -> np.ndarray:
    requests = pl.DataFrame({"image_id": ["a", "b"], "prompt": ["Effusion.", "Clear."]})
    pipe = pipeline(adapter(model()).to(device))
    with tempfile.TemporaryDirectory() as folder:
        return sample_pool(pipe, requests, Path(folder) / "pool", Sampling(1, 2), pictures(2, 3))


def edited(device: torch.device) -> np.ndarray:
    films, kept = pictures(2).astype(np.float32) / 255, np.tri(32) > 0
    record = PERSON | {"view": "LATERAL"}
    pipe = pipeline(flow().to(device))
    return pipe.edit(
        films, {"Effusion": 0}, record, num_inference_steps=2, keep_mask=kept, output_type="np"
    ).images  # fmt: skip


def every_editor(device: torch.device) -> np.ndarray:
    pipe, films = pipeline(flow().to(device)), pictures(2)
    records = [PERSON | {"image_id": f"t:{k}", "view": "PA"} for k in range(2)]
    older = [record | {"age": 80} for record in records]
    settings = editors.EditSettings(1, 0.8, (1.5, 1.2), 2.0)
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for editor in editors.EDITORS:  # `edit` takes longer to tell whether it was made before
            editors._edit(Path(folder), pipe, "", editor, films, records, older, settings)
            made.append(np.load(f"{folder}/edited.npy"))
    return np.stack([*made, editors.through_autoencoder(pipe, films)]) / 255  # one grey level is a rounding


def reconstructed(device: torch.device) -> np.ndarray:
    torch.manual_seed(0)
    return reconstruct(new_autoencoder((8, 8, 8)).to(device).eval(), pictures())[0]


CASES: dict[str, Callable[[torch.device], np.ndarray]] = {
    "text": lambda device: on(model(), device),
    "text without guidance": lambda device: on(model(), device, guidance_scale=1.0),
    "text with metadata before it": lambda device: on(model(), device, metadata={"sex": "F"}),
    "a learned variance": lambda device: on(model(out_channels=8), device, released_scheduler()),
    "the released DDIM": lambda device: on(model(), device, ReleasedDDIMScheduler.from_config(ddim_scheduler().config)),
    "Euler": lambda device: on(model(), device, EulerDiscreteScheduler()),
    "DPM-Solver++": lambda device: on(model(), device, DPMSolverMultistepScheduler()),
    "a flow": lambda device: on(flow(), device, flow_euler_scheduler(2.0)),
    "a flow with Heun": lambda device: on(flow(), device, flow_heun_scheduler(2.0)),
    "encoded metadata": lambda device: on(
        model(metadata_sources=["nih"]), device, metadata=PERSON, metadata_guidance={"age": 2.0}
    ),
    "metadata alone": lambda device: on(model(metadata_sources=["nih"]), device, prompt=None, metadata=PERSON),
    "a condition": adapted,
    "a loaded pipeline": moved,
    "an opened model": opened,
    "the baseline": lambda device: images(BaselinePipeline(**pipeline(unet(device)).components)),
    "another's Stable Diffusion": lambda device: others(load_baseline, device),
    "another's pipeline": lambda device: others(of_any_class, device),
    "a judged model": judged,
    "a preview": lambda device: preview(pipeline(model()), ["Clear lungs."], 2),
    "a pool": pool,
    "an edit": edited,
    "every editor": every_editor,
    "a latent cache": cached,
    "reconstructions": reconstructed,
}
