"""A student learns where its teacher's guided paths lead; recorded paths are those samples, and resume."""

from dataclasses import replace

import polars as pl
import pytest
import torch

from chexgen_lib.diffusion.objectives import random_stretch
from chexgen_lib.diffusion.schedulers import default_scheduler
from chexgen_lib.experiments.distillation import record_paths, student_of
from chexgen_lib.models.metadata import ATTRIBUTES, METADATA
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.training.config import TrainingError
from chexgen_lib.training.latent_cache import LatentCache, shards
from chexgen_lib.training.trainer import path_error, train
from tests.training.runs import CONFIG

REQUESTS = pl.DataFrame(
    {"image_id": list("abcde"), "prompt": ["Edema.", "No acute disease.", "Cardiomegaly.", "A nodule.", "Effusion."]}
)
SAMPLING = Sampling(copies=1, num_inference_steps=4, guidance_scale=3.0, batch_size=2, seed=5)


def recorded(flow, folder, requests=REQUESTS, sampling=SAMPLING, stretches=2) -> LatentCache:
    record_paths(folder, flow, "generator", requests, sampling, stretches)
    return LatentCache.load(folder)


def test_a_path_leads_from_the_noise_of_its_request_to_the_guided_sample(flow, tmp_path):
    paths = recorded(flow, tmp_path)
    assert paths.paths.shape == (5, 3, *flow.transformer.latent_shape)
    ordered = REQUESTS.sort(pl.col("prompt").str.len_chars(), "image_id")
    noise = paths.paths[:][:, 0].float()
    guided, free = (
        flow(
            ordered["prompt"].to_list(),
            latents=noise,
            num_inference_steps=4,
            guidance_scale=scale,
            output_type="latent",
        ).images
        for scale in (3.0, 1.0)
    )
    ends = paths.mean[:].float()
    torch.testing.assert_close(ends, guided, rtol=0, atol=0.05)
    assert (ends - free).abs().max() > 0.2
    assert not torch.equal(noise[0], noise[1])


def test_an_interrupted_recording_goes_on_to_the_same_bytes(flow, tmp_path):
    recorded(flow, tmp_path / "whole")
    recorded(flow, tmp_path / "again")
    for path in shards(tmp_path / "again")[::2]:
        path.unlink()
    recorded(flow, tmp_path / "again")
    for a, b in zip(shards(tmp_path / "whole"), shards(tmp_path / "again"), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_what_cannot_be_cut_evenly_is_refused(flow, tmp_path):
    with pytest.raises(TrainingError, match="4 steps cannot be cut into 3 equal stretches"):
        recorded(flow, tmp_path, stretches=3)
    flow.transformer.register_to_config(flow_shift=3.0)
    try:
        with pytest.raises(TrainingError, match="the paths of a shifted flow"):
            recorded(flow, tmp_path)
    finally:
        flow.transformer.register_to_config(flow_shift=1.0)


def test_a_stretch_leads_to_its_end_in_one_step():
    paths = torch.arange(6.0).reshape(2, 3, 1, 1, 1) ** 2
    seen = set()
    for seed in range(20):
        start, velocity, t = random_stretch(paths, torch.Generator().manual_seed(seed))
        for row, (x, v, time) in enumerate(zip(start.flatten(), velocity.flatten(), t, strict=True)):
            k = {1000.0: 0, 500.0: 1}[time.item()]
            assert x == paths[row, k] and x - v / 2 == paths[row, k + 1]
            seen.add((row, k))
    assert len(seen) == 4


def test_a_student_comes_nearer_to_its_teacher(flow, tmp_path):
    paths = recorded(flow, tmp_path / "paths")
    student = student_of(flow.transformer, 2)
    assert student.distilled_steps == 2 and flow.transformer.distilled_steps is None
    before = path_error(student, paths)
    config = replace(CONFIG, steps=60, batch_size=5, objective="rectified_flow", caption_dropout=0.0)
    train(student.requires_grad_(True), paths, config, tmp_path / "run")
    assert path_error(student, paths) < 0.7 * before


@pytest.fixture
def reader(flow):
    """A pipeline whose transformer reads metadata too; its encoder's output is not zero, as an untrained one's is."""
    config = {name: value for name, value in flow.transformer.config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    teacher = type(flow.transformer)(**config | {"metadata_sources": ["nih"]})
    teacher.load_state_dict(flow.transformer.state_dict(), strict=False)
    for parameter in teacher.metadata_embedder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return type(flow)(**{**flow.components, "transformer": teacher.eval()})


def people(n: int) -> pl.DataFrame:
    """Requests with metadata: women of 30 with an effusion on the left."""
    told = {"age": 30, "sex": "F", "view": "PA", "source": "nih", "Effusion": 1}
    details = [[{"finding": "Effusion", "side": "left", "severity": None}]]
    unknown = {name: None for name in METADATA if name not in ("image_id", "details", *told)}
    ids = pl.DataFrame({"image_id": [f"i{k:03}" for k in range(n)], "prompt": "Effusion."})
    return ids.join(pl.DataFrame(told | unknown | {"details": details}), how="cross")


def test_a_teacher_that_reads_metadata_is_asked_by_text_by_metadata_and_by_both(reader, tmp_path):
    sampling = replace(SAMPLING, batch_size=20)
    paths = recorded(reader, tmp_path, people(40), sampling)
    told = ~paths.metadata[:, : len(ATTRIBUTES)].isnan()
    with_text = paths.offsets.diff() > 1
    assert 0.25 < told.any(dim=1).float().mean() < 0.7, "half are asked by their text alone, or by few attributes"
    assert len({tuple(row) for row in told.tolist()}) > 5
    assert with_text[~told.any(dim=1)].all() and 0 < (~with_text).sum() < 10
    sides = paths.metadata[:, len(ATTRIBUTES) :].isnan().all(dim=1)
    assert torch.equal(~sides, told[:, ATTRIBUTES.index("Effusion")]), "a side is told with its finding"
    again = reader(
        prompt_embeds=paths.batch(torch.arange(20), torch.Generator())[1],
        prompt_attention_mask=paths.batch(torch.arange(20), torch.Generator())[2],
        metadata=[{"sex": "M"}] * 20,
        latents=paths.paths[:20][:, 0].float(),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    assert (again - paths.mean[:20].float()).abs().max() > 0.2, "the paths are those of their own metadata"


def test_a_student_learns_what_metadata_does(reader, tmp_path):
    paths = recorded(reader, tmp_path / "paths", people(12), replace(SAMPLING, batch_size=12))
    student = student_of(reader.transformer, 2)
    assert student.metadata_sources == reader.transformer.metadata_sources
    before = path_error(student, paths)
    config = replace(CONFIG, steps=60, batch_size=6, objective="rectified_flow", caption_dropout=0.0)
    train(student.requires_grad_(True), paths, config, tmp_path / "run")
    assert path_error(student, paths) < 0.7 * before
    assert path_error(student, replace(paths, metadata=paths.metadata.flip(0))) > path_error(student, paths)


def test_its_error_is_that_of_the_pipeline(flow, tmp_path):
    paths, student = recorded(flow, tmp_path), student_of(flow.transformer, 2)
    pipeline = type(flow)(**{**flow.components, "transformer": student, "scheduler": default_scheduler(student)})
    ordered = REQUESTS.sort(pl.col("prompt").str.len_chars(), "image_id")
    ends = pipeline(ordered["prompt"].to_list(), latents=paths.paths[:][:, 0].float(), output_type="latent").images
    own = (ends - paths.mean[:].float()).square().mean() / paths.mean[:].float().var()
    assert path_error(student, paths) == pytest.approx(own.item(), rel=0.02)
