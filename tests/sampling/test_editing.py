"""`ChexGenPipeline.edit`: no change is the same film, and what cannot be edited is refused by name."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from chexgen_lib.descriptions.changes import ChangeError
from chexgen_lib.diffusion.schedulers import flow_dpm_solver_scheduler
from chexgen_lib.images import ImageError
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.editing import Requests, added
from chexgen_lib.sampling.pipeline import ChexGenPipeline

RECORD = {"view": "LATERAL", "age": 55.0, "sex": "F", "Effusion": 1.0}  # not frontal: these films have no lungs
SIZE = 32


@pytest.fixture(scope="module")
def films():
    return np.random.default_rng(0).uniform(0.2, 0.8, (2, SIZE, SIZE)).astype(np.float32)


def edit(pipe, films, change=None, record=RECORD, **options):
    settings = dict(num_inference_steps=2, output_type="np") | options
    return pipe.edit(films, change, record if change else None, **settings).images[..., 0]


def test_no_change_is_the_same_film(flow, films):
    same = dict(prompt="An effusion.", source_prompt="An effusion.")
    assert np.abs(edit(flow, films, **same) - films).max() < 1e-5
    decoded = edit(flow, films, **same, keep_detail=False)
    assert np.abs(decoded - films).max() > 0.01, "the autoencoder of this test loses much"


def test_a_faint_change_is_left_out_and_a_visible_one_is_taken_over():
    films, change = np.full((2, 64, 64), 0.5, np.float32), np.zeros((2, 64, 64), np.float32)
    change[0], change[1, 20:44, 20:44] = 1 / 255, 60 / 255
    faint, seen = added(films, change) - films
    assert 0 < faint.max() * 255 < 0.2 and seen[32, 32] * 255 == pytest.approx(60, abs=0.2)
    assert (seen[:10] == 0).all(), "what is far from a change stays to the bit"
    assert np.array_equal(added(films, 0 * change), films)
    assert added(films, change + 1).max() == 1


def test_a_change_shows_and_more_guidance_shows_more(flow, films):
    moved = [np.abs(edit(flow, films, {"Effusion": 0}, guidance_scale=w) - films).mean() for w in (1, 2, 6)]
    assert 0 < moved[0] < moved[1] < moved[2]


def test_each_film_can_have_a_guidance_of_its_own(flow, films):
    together = edit(flow, films, {"age": 80}, guidance_scale=[1, 5])
    alone = [edit(flow, film, {"age": 80}, guidance_scale=w)[0] for film, w in zip(films, (1, 5), strict=True)]
    assert (
        np.abs(together - np.stack(alone)).max() < 1e-4 < np.abs(together[1] - edit(flow, films[1], {"age": 80})).max()
    )


def test_a_guidance_of_numpy_is_a_number(flow, films):
    given = [edit(flow, films, {"age": 80}, guidance_scale=weight) for weight in (np.float32(2), 2)]
    assert np.array_equal(*given)


def test_change_and_record_are_their_descriptions(flow, films):
    before, after = flow._requests(2, {"age": 80}, RECORD, None, None)
    assert "55-year" in before.prompts[0] and "80-year" in after.prompts[0]
    by_text = edit(flow, films, prompt=after.prompts, source_prompt=before.prompts)
    assert np.array_equal(by_text, edit(flow, films, {"age": 80}))


def test_a_batch_equals_its_films_one_by_one(flow, films):
    changes = [{"Effusion": 0}, {"age": 80}]
    together = edit(flow, films, changes, [RECORD, RECORD])
    alone = [edit(flow, film, change)[0] for film, change in zip(films, changes, strict=True)]
    assert np.abs(together - np.stack(alone)).max() < 1e-4


def test_what_the_mask_keeps_is_the_film_and_the_rest_changes(flow, films):
    kept = np.zeros((SIZE, SIZE), bool)
    kept[:, : SIZE // 2] = True
    edited = edit(flow, films, {"Effusion": 0}, keep_mask=kept)
    assert np.array_equal(edited[:, kept], films[:, kept])
    assert np.abs(edited - films)[:, ~kept].mean() > 0


def test_kinds_of_films_and_outputs(flow, films):
    greys = np.rint(films * 255).astype(np.uint8)
    pictures = [Image.fromarray(grey) for grey in greys]
    by_array = edit(flow, greys, {"age": 80})
    assert np.array_equal(edit(flow, pictures, {"age": 80}), by_array)
    pil = flow.edit(pictures[0], {"age": 80}, RECORD, num_inference_steps=2).images
    tensor = flow.edit(pictures, {"age": 80}, RECORD, num_inference_steps=2, output_type="pt", return_dict=False)[0]
    assert pil[0].mode == "L" and pil[0].size == (SIZE, SIZE) and tensor.shape == (2, 1, SIZE, SIZE)
    assert torch.allclose(tensor[:, 0], torch.from_numpy(by_array), atol=1e-6)


def test_a_pipeline_of_half_precision_edits(flow, films):
    parts = {name: copy.deepcopy(flow.components[name]).to(torch.bfloat16) for name in ("transformer", "vae")}
    half = ChexGenPipeline(**{**flow.components, **parts})
    edited = edit(half, films, {"Effusion": 0})
    assert np.abs(edited - films).max() > 0 and np.abs(edited - edit(flow, films, {"Effusion": 0})).mean() < 0.05


def test_a_metadata_encoder_reads_the_records_themselves(pipeline, films):
    torch.manual_seed(0)
    transformer = ChexGenTransformer.of_size(
        "ci", sample_size=4, text_dim=32, metadata_sources=["t"], objective="rectified_flow"
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipe = ChexGenPipeline(transformer.eval(), pipeline.vae, None, None, flow_dpm_solver_scheduler())
    assert np.abs(edit(pipe, films, {"Effusion": 0}) - films).max() > 0
    with pytest.raises(ValueError, match="reads metadata alone"):
        edit(pipe, films, prompt="a", source_prompt="b")
    with pytest.raises(ValueError, match="film 0: nothing that this model reads says {'site': 'B'}"):
        edit(pipe, films, {"site": "B"}, RECORD | {"site": "A"})


def test_a_model_of_text_and_metadata_reads_both_or_a_text_alone(flow, films):
    config = {name: value for name, value in flow.transformer.config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    transformer = ChexGenTransformer(**config | {"metadata_sources": ["t"]}).eval()
    transformer.load_state_dict(flow.transformer.state_dict(), strict=False)
    torch.nn.init.normal_(transformer.metadata_embedder.table.weight, std=0.1)
    pipe = ChexGenPipeline(**{**flow.components, "transformer": transformer})
    texts = {"prompt": "An effusion.", "source_prompt": "Clear lungs."}
    assert np.array_equal(edit(pipe, films, **texts), edit(flow, films, **texts))
    by_record = edit(pipe, films, {"age": 80}, RECORD)
    assert np.abs(by_record - edit(flow, films, {"age": 80}, RECORD)).max() > 1e-4
    assert np.array_equal(edit(pipe, films, {"age": 80}, RECORD | {"source": "elsewhere"}), by_record)
    assert not np.array_equal(edit(pipe, films, {"age": 80}, RECORD | {"source": "t"}), by_record)


def test_guidance_of_a_velocity_is_that_of_the_sampler(flow):
    x, times = torch.randn(1, *flow.transformer.latent_shape), [0.0, 0.5]
    asked = Requests(["An effusion."], None)
    with torch.inference_mode():
        plain, guided = (flow.velocity(asked, times, w)(x, 1) for w in (1.0, 3.0))
    assert plain.shape == x.shape and not torch.allclose(plain, guided)


GREY = np.random.default_rng(1).uniform(0.2, 0.8, (SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize(
    ("film", "words"),
    [
        ([], "no film to edit"),
        (np.full((SIZE, SIZE), 0.5, np.float32), "film 0 is no radiograph to edit: nearly flat"),
        (np.zeros((16, 16), np.float32), "film 0: has 16 x 16 pixels, this model edits 32 x 32"),
        ([GREY, np.stack([GREY] * 3, -1)], "film 1: needs one grey channel"),
        (Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)), "film 0: has the mode RGB"),
        (GREY * 255, "film 0: needs finite values in \\[0, 1\\]"),
        ((GREY * 255).astype(np.int64), "film 0: needs floats"),
    ],
)
def test_what_is_no_film_is_refused_by_name(flow, film, words):
    with pytest.raises(ImageError, match=words):
        edit(flow, film, {"age": 80})


def test_a_negative_is_no_frontal_film(flow):
    film = np.tile(np.r_[np.full(10, 0.9), np.full(12, 0.1), np.full(10, 0.9)].astype(np.float32), (SIZE, 1))
    with pytest.raises(ImageError, match="negative"):
        edit(flow, film, {"age": 80}, RECORD | {"view": "PA"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(change={"age": 80}, record=None), "`change` and the film's `record`"),
        (dict(), "give either"),
        (dict(prompt="a"), "`prompt` and `source_prompt`"),
        (dict(change={"age": 80}, record=RECORD, prompt="a", source_prompt="b"), "give either"),
        (dict(change=[{"age": 80}] * 3, record=RECORD), "3 entries in `change` for 1 prompts"),
        (dict(change={"site": "B"}, record=RECORD | {"site": "A"}), "nothing that this model reads says"),
        (dict(change={"age": 80}, record=RECORD, guidance_scale=[1, 2]), "2 entries in `guidance_scale`"),
        (dict(change={"age": 80}, record=RECORD, strength=0), "strength must be above 0"),
        (dict(change={"age": 80}, record=RECORD, strength="1"), "strength must be above 0 .* not '1'"),
        (dict(change={"age": 80}, record=RECORD, num_inference_steps=2.5), "must be a whole number .* not 2.5"),
        (dict(change={"age": 80}, record=RECORD, guidance_scale="2"), "guidance_scale must be a finite number"),
        (dict(change={"age": 80}, record=RECORD, guidance_scale=[np.nan]), "guidance_scale must be a finite number"),
        (dict(change={"age": 80}, record=RECORD, num_inference_steps=0), "num_inference_steps"),
        (dict(change={"age": 80}, record=RECORD, keep_mask=np.ones((4, 4), bool)), "keep_mask: needs bool"),
        (dict(change={"age": 80}, record=RECORD, output_type="latent"), "output_type must be"),
    ],
)
def test_arguments_that_cannot_be_used(flow, options, words):
    with pytest.raises(ValueError, match=words):
        flow.edit(GREY, **options)


def test_other_objectives_and_impossible_changes(pipeline, flow):
    with pytest.raises(ValueError, match="only a rectified flow can be inverted"):
        pipeline.edit(GREY, {"age": 80}, RECORD)
    with pytest.raises(ChangeError, match="Effusion is present already"):
        flow.edit(GREY, {"Effusion": 1}, RECORD)
