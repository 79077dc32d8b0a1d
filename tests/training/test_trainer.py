"""Every setting of the trainer does something, and misfits are clear."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training import trainer
from chexgen_lib.training.config import TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.run import build_optimizers, step_rows
from chexgen_lib.training.trainer import noise_error, train
from tests.training.runs import (
    CONFIG,
    flow,
    model,
    run,
    unet,
)


def test_muon_trains_the_matrices_of_blocks_and_adamw_the_rest_each_once():
    config = replace(CONFIG, muon_learning_rate=5e-3)
    for whole in (model(), ControlledTransformer.on(model(), copied_blocks=1)):
        adamw, muon = build_optimizers(whole, config)
        name_of = {id(p): name for name, p in whole.named_parameters()}
        matrices = [name_of[id(p)] for group in muon.param_groups for p in group["params"]]
        rest = [name_of[id(p)] for group in adamw.param_groups for p in group["params"]]
        assert sorted(matrices + rest) == sorted(name for name, p in whole.named_parameters() if p.requires_grad)
        assert all("blocks." in name or "copied_block." in name for name in matrices)
        assert {name.split(".", 2)[-1] for name in matrices} >= {"attn.qkv.weight"} or matrices[0].startswith("control")
        assert not any("table" in name or "bias" in name for name in matrices)


def test_muon_needs_blocks_of_matrices(cache, tmp_path):
    with pytest.raises(TrainingError, match="BaselineUNet has no blocks of matrices for Muon"):
        run(cache, tmp_path, build=unet, muon_learning_rate=5e-3)
    with pytest.raises(TrainingError, match="muon_learning_rate must be positive or null, not 0"):
        replace(CONFIG, muon_learning_rate=0)


@pytest.mark.parametrize("pairs, widest_gap", [(10, 150), (100, 50), (1000, 1)])
def test_the_noise_error_meets_all_times(pairs, widest_gap):
    times = []

    class Recorder:
        device, objective = "cpu", "ddpm"

        def __call__(self, noisy, t, states, mask):
            times.extend(t.tolist())
            return Transformer2DModelOutput(sample=noisy)

    zeros = torch.zeros(pairs, 4, 2, 2, dtype=torch.float16)
    texts = torch.zeros(pairs, 8, dtype=torch.float16), torch.arange(pairs + 1)
    noise_error(Recorder(), LatentCache(zeros, zeros, *texts))
    met = sorted(times)
    widest = max(b - a for a, b in zip([met[-1] - 1000, *met[:-1]], met, strict=True))
    assert len(set(met)) == pairs and widest <= widest_gap


@pytest.mark.parametrize("build", [model, flow])
def test_loss_falls(cache, tmp_path, build):
    _, history = run(cache, tmp_path, build, steps=60, batch_size=16, checkpoint_every=1000)
    losses = [h["loss"] for h in history]
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


@pytest.fixture(scope="module")
def weights_of():
    return {}


@pytest.fixture
def unchanged(cache, weights_of, tmp_path, fresh_accelerate):
    """The weights of a model after training with the settings as they are, trained once for all tests."""

    def trained(build):
        if build not in weights_of:
            fresh_accelerate()
            weights_of[build], _ = run(cache, tmp_path / "unchanged", build, steps=4)
        return weights_of[build]

    return trained


@pytest.mark.parametrize("build", [model, flow])
@pytest.mark.parametrize(
    "change",
    [
        dict(batch_size=5),
        dict(learning_rate=2e-2),
        dict(muon_learning_rate=2e-2),
        dict(weight_decay=0.5),
        dict(clip_norm=1e-3),
        dict(schedule="cosine"),
        dict(warmup_steps=3),
        dict(ema_decay=0.5),
        dict(caption_dropout=0.9),
        dict(gradient_accumulation=2),
        dict(precision="bf16"),
        dict(seed=1),
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_weights(cache, tmp_path, unchanged, build, change):
    changed, _ = run(cache, tmp_path, build, **{"steps": 4, **change})
    assert not torch.equal(unchanged(build), changed)


@pytest.mark.parametrize(
    "build, change",
    [
        (model, dict(noisy_weight=10.0)),
        (flow, dict(time_mean=0.5)),
        (flow, dict(time_scale=0.5)),
        (flow, dict(time_shift=3.0)),
    ],
)
def test_settings_of_an_objective_are_refused_with_the_other(cache, tmp_path, unchanged, build, change):
    test_every_setting_changes_the_weights(cache, tmp_path, unchanged, build, change)
    (name,) = change
    other = "rectified_flow" if build is model else "ddpm"
    with pytest.raises(TrainingError, match=f"{name} is for the objective {build().objective}"):
        replace(CONFIG, objective=other, **change)


def test_clipping_is_applied(cache, tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(cache, tmp_path, clip_norm=0.01)
    assert max(norms) <= 0.01 * 1.001


def test_epochs_see_every_row_once():
    rows = torch.cat([step_rows(10, step, 0, 1, 5, seed=0) for step in range(4)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    both = [step_rows(12, 0, part, 2, 6, seed=0) for part in range(2)]
    assert sorted(torch.cat(both).tolist()) == list(range(12))


def test_misfits_are_clear(cache, tmp_path):
    with pytest.raises(TrainingError, match="steps must be a positive integer"):
        replace(CONFIG, steps=0)
    with pytest.raises(TrainingError, match="precision"):
        replace(CONFIG, precision="fp8")
    with pytest.raises(TrainingError, match="objective must be one of ddpm, rectified_flow, not 'flow'"):
        replace(CONFIG, objective="flow")
    with pytest.raises(TrainingError, match="time_shift must be positive"):
        replace(CONFIG, objective="rectified_flow", time_shift=0)
    with pytest.raises(TrainingError, match="the model's objective is rectified_flow, the run's ddpm"):
        train(flow(), cache, CONFIG, tmp_path)
    wide = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=8, text_tokens=8)
    with pytest.raises(TrainingError, match="text states of width 8, not 16"):
        train(wide, cache, CONFIG, tmp_path)
    with pytest.raises(TrainingError, match="latents"):
        train(ChexGenTransformer.of_size("ci", sample_size=8), cache, CONFIG, tmp_path)
    long = replace(cache, states=torch.zeros(90, 16).half(), offsets=torch.tensor([0, *range(81, 91)]))
    with pytest.raises(TrainingError, match="a text has 81 tokens, the model's null caption 77"):
        train(unet(), long, CONFIG, tmp_path)


def test_processes_that_cannot_share_a_step_evenly_are_refused(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Accelerator, "num_processes", 4)
    with pytest.raises(TrainingError, match="4 processes cannot share the 2 micro-batches .* a multiple of 4"):
        run(cache, tmp_path, gradient_accumulation=2)


def test_history_is_json(cache, tmp_path):
    json.dumps(run(cache, tmp_path)[1])
