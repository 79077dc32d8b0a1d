"""Paths, targets and times of the two objectives; and a flow that learns a toy set and gives it back."""

import pytest
import torch

from chexgen_lib.diffusion.objectives import NoisePrediction, RectifiedFlow, step_weights
from chexgen_lib.diffusion.schedulers import flow_euler_scheduler, flow_heun_scheduler
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import TrainingConfig, noise_error, train


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 2, 2, generator=g), torch.randn(3, 4, 2, 2, generator=g)


def test_noisy_steps_weigh_more_up_to_the_largest_weight():
    signal = torch.tensor([1.0, 0.5, 0.1, 1e-4])
    assert step_weights(signal, 1.0).tolist() == [1, 1, 1, 1]
    weights = step_weights(signal, 4.0)
    torch.testing.assert_close(weights / weights[0], torch.tensor([1.0, 2.0, 4.0, 4.0]))
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))


def test_a_flow_goes_straight_from_latent_to_noise_at_its_target_velocity():
    flow, (x0, eps) = RectifiedFlow(), pair()
    torch.testing.assert_close(flow.noisy(x0, eps, torch.zeros(3)), x0)
    torch.testing.assert_close(flow.noisy(x0, eps, torch.full((3,), 1000.0)), eps)
    t = torch.tensor([100.0, 500.0, 900.0])
    moved = (flow.noisy(x0, eps, t + 50) - flow.noisy(x0, eps, t - 50)) / 0.1  # time runs from 0 to 1
    torch.testing.assert_close(moved, flow.target(x0, eps))
    torch.testing.assert_close(flow.noisy(x0, eps, t)[1], (x0[1] + eps[1]) / 2)


@pytest.mark.parametrize("objective", [NoisePrediction(), RectifiedFlow()])
def test_the_right_answer_stands_for_the_noise(objective):
    x0, eps = pair()
    t = torch.tensor([0, 400, 999])
    torch.testing.assert_close(objective.noise(objective.target(x0, eps), objective.noisy(x0, eps, t), t), eps)


def test_times_of_a_flow_are_logit_normal_and_shifted():
    def times(**settings):
        return RectifiedFlow(**settings).times(20_000, torch.Generator().manual_seed(0))

    plain = times(mean=0.3, scale=0.8)
    logits = torch.logit(plain / 1000)
    assert logits.mean().item() == pytest.approx(0.3, abs=0.02) and logits.std().item() == pytest.approx(0.8, abs=0.02)
    shifted = times(mean=0.3, scale=0.8, shift=3.0)
    # Esser et al. 2024, eq. 23; in logits, a shift by log 3
    torch.testing.assert_close(torch.logit(shifted / 1000), logits + torch.tensor(3.0).log(), atol=1e-3, rtol=1e-3)
    assert plain.min() > 0 and shifted.max() < 1000


@pytest.fixture
def toy() -> LatentCache:
    """Latents around +1 for one text and around -0.5 for the other, of spread 0.3 and 0.1."""
    g = torch.Generator().manual_seed(0)
    side = torch.arange(512) % 2
    spread, centre = torch.tensor([0.3, 0.1])[side], torch.tensor([1.0, -0.5])[side]
    latents = centre[:, None, None, None] + spread[:, None, None, None] * torch.randn(512, 4, 4, 4, generator=g)
    texts = torch.zeros(512, 384).scatter_(1, side[:, None], 20.0)
    return LatentCache(latents.half(), torch.zeros_like(latents).half(), texts.half(), torch.arange(513))


def test_a_flow_learns_a_toy_set_and_gives_back_its_mean_and_spread(toy, pipeline, tmp_path):
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384, text_tokens=1, objective="rectified_flow")
    untrained = noise_error(model, toy)
    config = TrainingConfig(
        steps=250,
        batch_size=64,
        objective="rectified_flow",
        learning_rate=3e-3,
        adam_beta2=0.99,
        schedule="cosine",
        ema_decay=0.99,
        precision="fp32",
        log_every=100,
        checkpoint_every=1000,
    )
    train(model, toy, config, tmp_path)
    assert noise_error(model, toy) < 0.5 * untrained
    embeds = torch.zeros(128, 1, 384)
    embeds[:64, 0, 0], embeds[64:, 0, 1] = 20.0, 20.0
    for scheduler in (flow_euler_scheduler(), flow_heun_scheduler()):
        pipe = ChexGenPipeline(**{**pipeline.components, "transformer": model, "scheduler": scheduler})
        pipe.set_progress_bar_config(disable=True)
        latents = pipe(
            prompt_embeds=embeds,
            prompt_attention_mask=torch.ones(128, 1),
            guidance_scale=1.0,
            num_inference_steps=20,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        ).images
        for found, mean, spread in ((latents[:64], 1.0, 0.3), (latents[64:], -0.5, 0.1)):
            assert found.mean().item() == pytest.approx(mean, abs=0.06)
            assert found.std().item() == pytest.approx(spread, abs=0.06)


def test_a_pipeline_samples_with_the_shift_of_training(toy, tmp_path):
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384, text_tokens=1, objective="rectified_flow")
    config = TrainingConfig(steps=1, batch_size=2, objective="rectified_flow", time_shift=2.0, precision="fp32")
    train(model, toy, config, tmp_path / "run")
    model.save_pretrained(tmp_path / "model")
    loaded = ChexGenTransformer.from_pretrained(tmp_path / "model")
    assert assemble(loaded, "shipped", None).scheduler.config.flow_shift == loaded.enlarged().flow_shift == 2.0
