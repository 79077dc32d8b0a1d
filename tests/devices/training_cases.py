"""What trains a generator or the autoencoder, each on a device: numbers of the trained model."""

import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import torch

from chexgen_lib.experiments import distillation
from chexgen_lib.experiments.adapter import changed_tensors
from chexgen_lib.experiments.rectified_flow import comparison
from chexgen_lib.experiments.scaling import training as scaling
from chexgen_lib.models import sizing
from chexgen_lib.models.autoencoder import load_autoencoder, new_autoencoder
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.models.transformer import SIZES
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.training import autoencoder, pretraining, trainer
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.run import Run
from chexgen_lib.training.stages import read_training, train_model
from tests.devices.sampling_cases import PERSON, adapter, flow, model, pictures, pipeline, unet

CONFIG = TrainingConfig(
    steps=3, batch_size=2, learning_rate=1e-2, precision="fp32", checkpoint_every=1, log_every=1, ema_decay=0.5
)


def pairs(n: int = 4, **more) -> LatentCache:
    generator = torch.Generator().manual_seed(n)
    latents, texts = torch.randn(n, 4, 4, 4, generator=generator), torch.randn(2 * n, 384, generator=generator)
    return LatentCache(
        latents.half(), torch.zeros_like(latents).half(), texts.half(), torch.arange(0, 2 * n + 1, 2), **more
    )


def conditions(n: int) -> torch.Tensor:
    return torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(1)).half()


class Stopped(Exception):
    pass


def trained(network: torch.nn.Module, config: TrainingConfig = CONFIG, of=pairs) -> np.ndarray:
    """Weights and held-out errors of a training; one of several steps is interrupted at the last, and resumed."""
    optimise = Run.optimise

    def stopping(run: Run, cache: LatentCache, step: int):
        if step == config.steps - 1:
            raise Stopped
        return optimise(run, cache, step)

    with tempfile.TemporaryDirectory() as stage:
        (folder := Path(stage) / "model").mkdir()
        given = of(4), of(2), config
        network.requires_grad_(True)
        if config.steps > 1:
            with patch.object(Run, "optimise", stopping), suppress(Stopped):
                train_model(folder, copy.deepcopy(network), *given)
            assert list(folder.glob("checkpoint-*"))
        train_model(folder, network, *given)
        error = read_training(folder)[1]
    weights = torch.cat([p.detach().cpu().flatten() for p in network.parameters()])
    return np.append(weights.numpy(), list(error.values()))


def adapter_trained(device: torch.device) -> np.ndarray:
    base = model()
    controlled = adapter(base)
    controlled.controlnet.requires_grad_(True)
    config = replace(CONFIG, steps=2)
    with tempfile.TemporaryDirectory() as stage:
        (folder := Path(stage) / "model").mkdir()
        parts = (pairs(n, condition=conditions(n)) for n in (4, 2))
        train_model(folder, controlled, *parts, config)
    assert changed_tensors(base, controlled) == 0
    return torch.cat([p.detach().cpu().flatten() for p in controlled.parameters()]).numpy()


def by_metadata(n: int) -> LatentCache:
    return pairs(n, metadata=encode_metadata([PERSON] * n, ["nih"]))


def sharpened(device: torch.device) -> np.ndarray:
    torch.manual_seed(0)
    network, recipe = new_autoencoder((8, 8, 8)), autoencoder.AutoencoderRecipe(2, 2, batch_size=2, crop=32)
    with patch.object(autoencoder, "DISCRIMINATOR_START", 1):
        autoencoder.train_autoencoder(network, pictures(), recipe)
    assert network.device.type == device.type, "the autoencoder is not trained where it is fast"
    return autoencoder.reconstruct(network, pictures())[0]


def foundation_kept(device: torch.device) -> np.ndarray:
    """Weights that are not trained here, and their errors."""
    with tempfile.TemporaryDirectory() as folder:
        frozen, empty = load_autoencoder("shipped"), pretraining.pl.DataFrame(schema=pretraining.HISTORY)
        texts = ["Effusion.", "Clear.", "No effusion."]
        pretraining.keep_weights(Path(folder), model().to(device), empty, pictures(), texts, frozen, "minilm")
        return np.array(list(read_training(Path(folder))[1].values()))


def scaled(device: torch.device) -> np.ndarray:
    sampling = scaling.FewSamples(1, 2, 2.0, 2, "shipped")
    settings = dict(size=SIZES["ci"], text_tokens=8, training=CONFIG, sampling=sampling)
    with tempfile.TemporaryDirectory() as folder:
        pairs().save(own := Path(folder) / "pairs")
        run = scaling.train_and_sample(own, own, rows=np.arange(4), folder=Path(folder) / "run", **settings)
    return np.concatenate([run["samples"].flatten() / 255, [run["noise_error"], run["seen_error"]]])


def compared(device: torch.device) -> np.ndarray:
    """A rectified flow beside the other objective; then a longer one, restored from its weights."""
    cache, flow_model = by_metadata(4), comparison.FlowModel("ci", 16, ["nih"], "shipped")
    config = replace(CONFIG, objective="rectified_flow", noisy_weight=1.0)
    with tempfile.TemporaryDirectory() as folder:
        pairs(4).save(kept := Path(folder) / "pairs")
        data, options = (kept, cache.metadata.numpy()), dict(model=flow_model, training=config)
        few = comparison.FewSteps([PERSON], [2], 2.0)
        run = comparison.train_and_sample(*data, **options, sampling=few, folder=Path(folder) / "few")
        long = comparison.train_and_sample(*data, **options, sampling=None, folder=Path(folder) / "long")
    restored = flow_model.restored(long, (4, 4, 4))
    assert restored.device.type == device.type
    pipe = comparison.sampler(restored, "shipped")
    noise = torch.Generator().manual_seed(0)
    again = pipe(metadata=[PERSON], num_inference_steps=2, guidance_scale=2.0, generator=noise, output_type="np")
    return np.concatenate([run["steps 2"].flatten() / 255, again.images.flatten()])


def distilled(device: torch.device) -> np.ndarray:
    """A student of recorded paths: how far it ends from them, before it is trained."""
    teacher = pipeline(flow().to(device))
    requests = pl.DataFrame({"image_id": ["a", "b"], "prompt": ["Edema.", "Cardiomegaly."]})
    in_float32 = patch.object(distillation, "native_bf16", return_value=False)  # the device has no autocast
    with tempfile.TemporaryDirectory() as folder, in_float32:
        distillation.record_paths(Path(folder), teacher, "generator", requests, Sampling(1, 2, 2.0), 2)
        paths = LatentCache.load(Path(folder))
        return np.array(trainer.path_error(distillation.student_of(teacher.transformer, 2), paths))


def timed(device: torch.device) -> np.ndarray:
    """Steps as the sizing stage times them: they take place."""
    run = sizing.Run("ci", 32, images=4, epochs=1, batch_size=2, text_tokens=4, text_dim=16)
    return (sizing.time_steps({"ci": run}, 2, 1)["FLOP/s"] > 0).to_numpy()


CASES: dict[str, Callable[[torch.device], np.ndarray]] = {
    "the noise error": lambda device: np.array(trainer.noise_error(model().to(device), pairs())),
    "training": lambda device: trained(model()),
    "training at a higher resolution": lambda device: trained(model(sample_size=2).to(device).for_latents(4)),
    "training with Muon and checkpointed gradients": lambda device: trained(
        model(), replace(CONFIG, muon_learning_rate=1e-2, gradient_checkpointing=True, gradient_accumulation=2)
    ),
    "training a flow by metadata": lambda device: trained(
        model(objective="rectified_flow", metadata_sources=["nih"]),
        replace(CONFIG, objective="rectified_flow", noisy_weight=1.0),
        by_metadata,
    ),
    "training the baseline": lambda device: trained(unet(torch.device("cpu")), replace(CONFIG, steps=1)),
    "training an adapter": adapter_trained,
    "training the autoencoder": sharpened,
    "a foundation that is loaded": foundation_kept,
    "a run of the scaling laws": scaled,
    "objectives compared": compared,
    "a student": distilled,
    "steps that are timed": timed,
}
