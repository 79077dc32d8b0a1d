"""Interrupted and resumed equals uninterrupted, and every setting of the trainer does something."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training import trainer
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import CacheError, LatentCache
from chexgen_lib.training.run import build_optimizers, step_rows
from chexgen_lib.training.trainer import noise_error, train

CONFIG = TrainingConfig(
    steps=6,
    batch_size=4,
    learning_rate=1e-2,
    ema_decay=0.9,
    precision="fp32",
    checkpoint_every=2,
    log_every=1,
)


@pytest.fixture
def cache() -> LatentCache:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (10,), generator=g)
    return LatentCache(
        mean=torch.randn(10, 4, 4, 4, generator=g).half(),
        std=torch.full((10, 4, 4, 4), 0.1).half(),
        states=torch.randn(int(lengths.sum()), 16, generator=g).half(),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths]).cumsum(0),
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


@pytest.mark.parametrize("build, accumulation", [(b, n) for b in (model, flow, unet) for n in (1, 2)])
def test_resumed_equals_uninterrupted(cache, tmp_path, monkeypatch, build, accumulation):
    changes = dict(build=build, gradient_accumulation=accumulation, schedule="cosine", warmup_steps=2)
    expected, history = run(cache, tmp_path / "whole", **changes)
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path / "cut", **changes)
    assert [p.name for p in tmp_path.glob("cut/checkpoint-*")] == ["checkpoint-00000004"]
    resumed, resumed_history = run(cache, tmp_path / "cut", **changes)
    assert torch.equal(resumed, expected)
    assert resumed_history == history
    logs = [(tmp_path / name / "log/plots/metrics/loss.tsv").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert not list(tmp_path.glob("cut/checkpoint*"))


@pytest.mark.parametrize("build", [model, flow])
def test_resumed_with_muon_equals_uninterrupted(cache, tmp_path, monkeypatch, build):
    changes = dict(build=build, muon_learning_rate=5e-3, schedule="cosine", warmup_steps=2)
    expected, history = run(cache, tmp_path / "whole", **changes)
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path / "cut", **changes)
    resumed, resumed_history = run(cache, tmp_path / "cut", **changes)
    assert torch.equal(resumed, expected) and resumed_history == history
    assert not torch.equal(expected, run(cache, tmp_path / "adamw", build=build, schedule="cosine", warmup_steps=2)[0])


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


def test_the_clock_adds_up_over_interruptions(cache, tmp_path, monkeypatch):
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(trainer, "perf_counter", lambda: float(next(times)))
    assert trainer.read_seconds(tmp_path) == 0
    with monkeypatch.context() as m:
        interrupt(m, at=3)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path)
    assert trainer.read_seconds(tmp_path) == 10
    train(model(), cache, CONFIG, tmp_path, keep_last=True)
    assert trainer.read_seconds(tmp_path) == 10 + 20
    train(model(), cache, CONFIG, tmp_path / "taken over", keep_last=True, continued_from=tmp_path)
    assert trainer.read_seconds(tmp_path / "taken over") == 30


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


def test_a_finished_training_can_be_kept_until_its_result_is_safe(cache, tmp_path, monkeypatch):
    m = model()
    history = train(m, cache, CONFIG, tmp_path, keep_last=True)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{CONFIG.steps:08d}"]
    monkeypatch.setattr(trainer.Run, "optimise", None)  # not one step more
    again = model()
    assert train(again, cache, CONFIG, tmp_path, keep_last=True) == history
    assert torch.equal(weights(again), weights(m))


@pytest.mark.parametrize("build", [model, flow])
def test_loss_falls(cache, tmp_path, build):
    _, history = run(cache, tmp_path, build, steps=150, batch_size=16, checkpoint_every=1000)
    losses = [h["loss"] for h in history]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


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
def test_every_setting_changes_the_weights(cache, tmp_path, build, change, fresh_accelerate):
    base, _ = run(cache, tmp_path / "base", build, steps=4)
    fresh_accelerate()
    changed, _ = run(cache, tmp_path / "changed", build, **{"steps": 4, **change})
    assert not torch.equal(base, changed)


@pytest.mark.parametrize(
    "build, change",
    [
        (model, dict(noisy_weight=10.0)),
        (flow, dict(time_mean=0.5)),
        (flow, dict(time_scale=0.5)),
        (flow, dict(time_shift=3.0)),
    ],
)
def test_settings_of_an_objective_are_refused_with_the_other(cache, tmp_path, build, change, fresh_accelerate):
    test_every_setting_changes_the_weights(cache, tmp_path, build, change, fresh_accelerate)
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


def test_checkpoint_of_another_run_is_refused(cache, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        interrupt(m, at=3)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path)
    with pytest.raises(TrainingError, match="of another run"):
        run(cache, tmp_path, learning_rate=0.5)
    with pytest.raises(TrainingError, match="of another run"):
        run(cache, tmp_path, flow)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(TrainingError, match="not a whole checkpoint"):
        run(cache, tmp_path)


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


def test_latent_cache_round_trip_and_errors(cache, tmp_path):
    path = tmp_path / "cache.safetensors"
    with pytest.raises(CacheError, match="run the stage 02_cohort"):
        LatentCache.load(path)
    cache.save(path)
    loaded = LatentCache.load(path)
    assert torch.equal(loaded.mean, cache.mean) and torch.equal(loaded.states, cache.states)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CacheError, match="not a latent cache"):
        LatentCache.load(path)
    with pytest.raises(CacheError, match="do not form pairs"):
        LatentCache(cache.mean, cache.std, cache.states, cache.offsets[:-1])


def test_history_is_json(cache, tmp_path):
    json.dumps(run(cache, tmp_path)[1])


def with_conditions(cache) -> LatentCache:
    g = torch.Generator().manual_seed(1)
    return replace(cache, condition=torch.randn(cache.mean.shape, generator=g).half())


def test_an_adapter_learns_and_not_one_bit_of_the_frozen_model_moves(cache, tmp_path):
    base = model().eval()
    torch.nn.init.normal_(base.final_layer.linear.weight, std=0.1)  # else nothing the adapter adds reaches the output
    adapter = ControlledTransformer.on(base, 1)
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    train(adapter, with_conditions(cache), replace(CONFIG, weight_decay=0.5), tmp_path)
    after = adapter.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("controlnet.") for name in moved)
    assert {"controlnet.0.before_proj.weight", "controlnet.0.after_proj.weight"} <= moved
    assert all(torch.equal(tensor, after[f"base_model.{name}"]) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize("build", [model, flow])
def test_an_interrupted_adapter_goes_on(cache, tmp_path, monkeypatch, build, fresh_accelerate):
    def adapter():
        return ControlledTransformer.on(build().eval(), 1)

    conditions, config = with_conditions(cache), replace(CONFIG, objective=build().objective)
    whole, cut = adapter(), adapter()
    train(whole, conditions, config, tmp_path / "whole")
    interrupt(monkeypatch, at=3)
    with pytest.raises(KeyboardInterrupt):
        train(cut, conditions, config, tmp_path / "cut")
    monkeypatch.undo()
    fresh_accelerate()
    cut = adapter()
    train(cut, conditions, config, tmp_path / "cut")
    assert torch.equal(weights(whole), weights(cut))


PEOPLE = [{"age": 7.0 * i, "sex": "FM"[i % 2], "Edema": i % 2, "source": "nih"} for i in range(10)]


def with_metadata(cache) -> LatentCache:
    return replace(cache, metadata=encode_metadata(PEOPLE, ["nih"]))


def encoder() -> ChexGenTransformer:
    torch.manual_seed(0)
    config = dict(sample_size=4, text_dim=16, text_tokens=8, objective="rectified_flow", metadata_sources=["nih"])
    return ChexGenTransformer.of_size("ci", **config)


def test_metadata_is_learnt_and_an_interrupted_run_goes_on(cache, tmp_path, monkeypatch):
    pairs = with_metadata(cache)
    expected, history = run(pairs, tmp_path / "whole", encoder)
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(pairs, tmp_path / "cut", encoder)
    other = replace(pairs, metadata=pairs.metadata.flip(0))
    with pytest.raises(TrainingError, match="of another run"):
        run(other, tmp_path / "cut", encoder)
    resumed, resumed_history = run(pairs, tmp_path / "cut", encoder)
    assert torch.equal(resumed, expected) and resumed_history == history
    assert not torch.equal(run(other, tmp_path / "other", encoder)[0], expected)
    trained = encoder()
    train(trained, pairs, replace(CONFIG, objective="rectified_flow"), tmp_path / "again")
    fresh = encoder().metadata_embedder.state_dict()
    moved = {name for name, value in trained.metadata_embedder.state_dict().items() if not value.equal(fresh[name])}
    assert {"age.weight", "sex.weight", "findings.weight"} <= moved
    assert noise_error(trained, pairs) != noise_error(trained, other)


def test_metadata_is_for_models_that_read_it(cache, tmp_path):
    for build, pairs in ((encoder, cache), (flow, with_metadata(cache)), (unet, with_metadata(cache))):
        with pytest.raises(TrainingError, match="a model with a metadata encoder needs a cache with metadata"):
            run(pairs, tmp_path, build)
    other = replace(cache, metadata=encode_metadata([{"source": "openi"}] * 10, ["nih", "openi"]))
    with pytest.raises(TrainingError, match="a source number 1, the model knows 1"):
        run(other, tmp_path, encoder)
    with pytest.raises(CacheError, match="metadata .* for 10 pairs"):
        replace(cache, metadata=encode_metadata(PEOPLE[:9], ["nih"]))


def test_beside_metadata_a_dropped_caption_is_one_token_long(cache, tmp_path, monkeypatch):
    lengths, original = [], ChexGenTransformer.with_metadata

    def spy(self, states, mask, metadata):
        lengths.append(mask.sum(1))
        return original(self, states, mask, metadata)

    monkeypatch.setattr(ChexGenTransformer, "with_metadata", spy)
    run(with_metadata(cache), tmp_path / "encoder", encoder, caption_dropout=0.9999)
    assert torch.cat(lengths).max() == 1
    lengths.clear()
    run(cache, tmp_path / "text", flow, caption_dropout=0.9999)
    assert torch.cat(lengths).max() > 1  # as in the released code


def test_a_cache_keeps_its_metadata(cache, tmp_path):
    pairs = with_metadata(cache)
    pairs.save(tmp_path / "c.safetensors")
    torch.testing.assert_close(LatentCache.load(tmp_path / "c.safetensors").metadata, pairs.metadata, equal_nan=True)
    cache.save(tmp_path / "old.safetensors")
    assert LatentCache.load(tmp_path / "old.safetensors").metadata is None


def test_conditions_are_for_adapters(cache, tmp_path):
    with pytest.raises(TrainingError, match="an adapter needs a cache with conditions"):
        train(ControlledTransformer.on(model(), 1), cache, CONFIG, tmp_path)
    with pytest.raises(TrainingError, match="a text-to-image model one without"):
        train(model(), with_conditions(cache), CONFIG, tmp_path)
    with pytest.raises(CacheError, match="do not form pairs"):
        replace(cache, condition=torch.zeros(10, 4, 2, 2))


def test_a_cache_keeps_its_conditions(cache, tmp_path):
    conditions = with_conditions(cache)
    conditions.save(tmp_path / "c.safetensors")
    loaded = LatentCache.load(tmp_path / "c.safetensors")
    assert torch.equal(loaded.condition, conditions.condition)
    rows = torch.tensor([3, 1])
    (condition,) = loaded.batch(rows, torch.Generator())[3]
    assert torch.equal(condition, conditions.condition[rows].float()) and cache.batch(rows, torch.Generator())[3] == []
