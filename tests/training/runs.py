"""Small models and short trainings of the trainer's tests."""

from dataclasses import replace

import torch

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training import trainer
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import train

CONFIG = TrainingConfig(
    steps=6,
    batch_size=4,
    learning_rate=1e-2,
    ema_decay=0.9,
    precision="fp32",
    checkpoint_every=2,
    log_every=1,
)


def model() -> ChexGenTransformer:
    torch.manual_seed(0)
    return ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8)


def flow() -> ChexGenTransformer:
    torch.manual_seed(0)
    return ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8, objective="rectified_flow")


def unet() -> BaselineUNet:
    torch.manual_seed(0)
    return BaselineUNet.of_size("ci", (4, 4, 4), text_dim=16)


def weights(m) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in m.parameters()])


def run(cache, folder, build=model, **changes):
    m = build()
    history = train(m, cache, replace(CONFIG, objective=m.objective, **changes), folder)
    return weights(m), history


def interrupt(monkeypatch, at):
    def stop(self, cache, step, original=trainer.Run.optimise):
        if step == at:
            raise KeyboardInterrupt
        return original(self, cache, step)

    monkeypatch.setattr(trainer.Run, "optimise", stop)


def with_conditions(cache) -> LatentCache:
    g = torch.Generator().manual_seed(1)
    return replace(cache, condition=torch.randn(cache.mean.shape, generator=g).half())


PEOPLE = [{"age": 7.0 * i, "sex": "FM"[i % 2], "Edema": i % 2, "source": "nih"} for i in range(10)]


def with_metadata(cache) -> LatentCache:
    return replace(cache, metadata=encode_metadata(PEOPLE, ["nih"]))


def encoder() -> ChexGenTransformer:
    torch.manual_seed(0)
    config = dict(sample_size=4, text_dim=16, text_tokens=8, objective="rectified_flow", metadata_sources=["nih"])
    return ChexGenTransformer.of_size("ci", **config)
