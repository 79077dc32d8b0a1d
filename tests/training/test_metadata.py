"""A flow that learns from metadata does what is asked for, and leaves open what is not."""

import pytest
import torch

from chexgen_lib.diffusion.schedulers import flow_euler_scheduler
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import TrainingConfig, train


@pytest.fixture
def toy() -> LatentCache:
    """Latents whose first channel is 1 for men and -1 for women, and whose second follows age from -1 to 1."""
    g = torch.Generator().manual_seed(0)
    male, age = torch.randint(0, 2, (512,), generator=g), 120 * torch.rand(512, generator=g)
    latents = 0.1 * torch.randn(512, 4, 4, 4, generator=g)
    latents[:, 0] += (2.0 * male - 1)[:, None, None]
    latents[:, 1] += (age / 60 - 1)[:, None, None]
    people = [{"sex": "FM"[m], "age": a} for m, a in zip(male.tolist(), age.tolist(), strict=True)]
    texts = torch.ones(512, 384).half()
    codes = encode_metadata(people, [])
    return LatentCache(latents.half(), torch.zeros_like(latents).half(), texts, torch.arange(513), metadata=codes)


def test_any_subset_can_be_asked_for(toy, pipeline, tmp_path):
    torch.manual_seed(0)
    config = dict(text_dim=384, text_tokens=1, objective="rectified_flow", metadata_sources=[])
    model = ChexGenTransformer.of_size("ci", sample_size=4, **config)
    settings = TrainingConfig(
        steps=300,
        batch_size=64,
        objective="rectified_flow",
        learning_rate=3e-3,
        adam_beta2=0.99,
        schedule="cosine",
        ema_decay=0.99,
        caption_dropout=0.5,
        precision="fp32",
        log_every=100,
        checkpoint_every=1000,
    )
    train(model, toy, settings, tmp_path)
    parts = {**pipeline.components, "transformer": model, "scheduler": flow_euler_scheduler()}
    pipe = ChexGenPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)

    def means(person, **guidance):
        """[128, 2]: what the channels of sex and of age show."""
        settings = {"guidance_scale": 1.0, **guidance}
        latents = pipe(
            metadata=[person] * 128,
            num_inference_steps=10,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
            **settings,
        ).images
        return latents[:, :2].mean(dim=(2, 3))

    women, old, old_men = means({"sex": "F"}), means({"age": 100}), means({"sex": "M", "age": 100})
    assert women[:, 0].mean() == pytest.approx(-1, abs=0.2) and women[:, 0].std() < 0.3
    assert women[:, 1].std() > 0.35  # of all ages: 0.58 in the toy
    assert old[:, 1].mean() == pytest.approx(2 / 3, abs=0.2) and 0.2 < (old[:, 0] > 0).float().mean() < 0.8
    assert old_men[:, 0].mean() == pytest.approx(1, abs=0.2) and old_men[:, 1].mean() == pytest.approx(2 / 3, abs=0.2)
    composed = means({"sex": "M", "age": 100}, metadata_guidance={"sex": 1.0, "age": 1.0})
    assert composed[:, 0].mean() == pytest.approx(1, abs=0.3) and composed[:, 1].mean() > 0.4
