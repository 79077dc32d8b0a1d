"""The formulas agree with the model that they describe, and with what the two papers state."""

from dataclasses import replace

import pytest

from chexgen_lib.models.sizing import (
    ACTIVATION_BYTES,
    PAPERS,
    STATE_BYTES,
    TEXT_BYTES,
    Run,
    check,
    count_flops,
    table,
    time_steps,
)
from chexgen_lib.models.transformer import SIZES
from chexgen_lib.workflow.dag import compose

SMALL = Run("laptop", 64, images=100, epochs=2, batch_size=8, text_tokens=24, text_dim=48)


def test_rf_1b_has_the_second_papers_parameters():
    run = PAPERS["rectified flow"]
    assert run.size == "rf-1b" and abs(run.parameters / 1.3e9 - 1) < 0.02


def test_sizes_grow_in_their_order():
    counts = [Run(size, 256, 1, 1, 1).parameters for size in SIZES]
    assert counts == sorted(counts) and len(set(counts)) == len(SIZES)


def test_the_released_model_is_counted_as_released():
    assert Run("xl2", 512, 1, 1, 1).parameters == 612_527_264


@pytest.mark.parametrize("size", ["ci", "laptop", "s2"])
def test_flops_are_those_the_model_computes(size):
    run = replace(SMALL, size=size)
    model, batch = run.model(), run.batch(1)
    assert count_flops(lambda: model(*batch)) == run.forward_flops


def test_memory_of_states_and_activations():
    states = SMALL.parameters * STATE_BYTES
    assert SMALL.memory(0) == states and SMALL.memory(0, sharded_over=4) == states / 4
    images = SMALL.memory(8) - states
    assert images == 8 * 256 * 6 * (16 * ACTIVATION_BYTES + 24 * TEXT_BYTES) == 2 * (SMALL.memory(4) - states)
    assert SMALL.memory(8, checkpointing=True) - states < images / 3


def a_step(section) -> int:
    """Images of an optimiser step."""
    return section["training"]["batch_size"] * section["training"]["gradient_accumulation"]


def test_chexgens_runs_are_as_the_paper_states_them(tmp_path):
    profile = compose("paper", tmp_path / "params.yaml")
    first, second = PAPERS["ChexGen stage I"], PAPERS["ChexGen stage II"]
    assert first.tokens_per_image == 256 and second.tokens_per_image == 1024
    for run, stage in ((first, "pretraining"), (second, "alignment")):
        assert run.steps == profile[stage]["training"]["steps"] and run.batch_size == a_step(profile[stage])
    assert a_step(profile["baseline"]) == first.batch_size and profile["baseline"]["training"]["steps"] == first.steps
    control = profile["annotation_to_image"]  # ED Table 4: 200 epochs, 32 a GPU on 32 GPUs
    assert a_step(control) == 32 * 32
    assert control["training"]["steps"] == -(-200 * control["pairs_per_kind"] // a_step(control))
    assert first.size == profile["pretraining"]["model"]
    assert first.latent_cache == 959_206 * 16 * 1024
    assert first.text_cache() == 959_206 * 120 * 4096 * 2 and first.text_cache(60) == first.text_cache() / 2


def test_the_trainings_of_profile_paper_fit_its_gpus(tmp_path):
    profile = compose("paper", tmp_path / "params.yaml")
    for run, stage in zip(PAPERS.values(), ("pretraining", "alignment", "rectified_flow"), strict=True):
        settings, size = profile[stage]["training"], profile[stage].get("model", "xl2")
        own = replace(run, size=size, resolution=profile[stage].get("resolution", run.resolution))
        assert own.memory(settings["batch_size"], settings["gradient_checkpointing"]) < 0.6 * 80e9, stage


def test_the_second_papers_tokens_are_epochs_of_its_images():
    run = PAPERS["rectified flow"]
    assert run.tokens == pytest.approx(1.6e12) and run.images == 1_200_000
    assert run.epochs == pytest.approx(1302.08, abs=0.01)
    assert replace(run, resolution=256).of_tokens(1.6e12).epochs == pytest.approx(5208.33, abs=0.01)
    # the rule of thumb, 6 FLOPs a parameter and token, leaves out attention and counts the text's weights
    assert run.training_flops() == pytest.approx(6 * 1.3e9 * 1.6e12, rel=0.25)


def test_hours_and_cost():
    run = PAPERS["ChexGen stage I"]
    hours = run.gpu_hours(utilisation=0.5)
    assert hours == pytest.approx(run.training_flops() / 156e12 / 3600)
    assert run.gpu_hours(0.25) == pytest.approx(2 * hours) and run.gpu_hours(0.5, checkpointing=True) > hours
    assert run.gpu_hours(0.5, "H100") == pytest.approx(hours * 312 / 989) and run.cost(2.0, 0.5) == 2 * hours


def test_bad_values_are_clear():
    with pytest.raises(ValueError, match="unknown model size 'rf-2b'"):
        replace(SMALL, size="rf-2b")
    with pytest.raises(ValueError, match="multiple of 16 px, not 100"):
        replace(SMALL, resolution=100)
    with pytest.raises(ValueError, match="epochs must be positive, not 0"):
        replace(SMALL, epochs=0)
    with pytest.raises(ValueError, match="utilisation must be above 0 and at most 1, not 50"):
        SMALL.gpu_hours(50)
    with pytest.raises(ValueError, match="unknown GPU 'B200'"):
        SMALL.gpu_hours(0.5, "B200")
    with pytest.raises(ValueError, match="price must be at least 0"):
        SMALL.cost(-1, 0.5)


def test_a_size_without_a_name_counts_like_a_named_one():
    own = replace(SMALL, size=SIZES["laptop"])
    assert (own.parameters, own.forward_flops, own.memory(8)) == (
        SMALL.parameters,
        SMALL.forward_flops,
        SMALL.memory(8),
    )


def test_the_check_holds_formulas_against_the_model():
    found = check(SMALL)
    assert found["quantity"].n_unique() == len(found) == 5
    assert found["ratio"][:4].to_list() == pytest.approx([1.0] * 4, rel=0.01)
    assert found["ratio"][4] == pytest.approx(1, rel=0.05)  # as ACTIVATION_BYTES is
    assert found["ratio"][0] == found["ratio"][1] == 1.0


def test_the_table_of_runs_adds_up():
    run = PAPERS["rectified flow"]
    (row,) = table({"flow": run}, gpus=32, utilisation=0.4, price=2.0).to_dicts()
    assert row["parameters"] == run.parameters and row["cost"] == pytest.approx(2 * row["GPU-hours"])
    assert row["days"] == pytest.approx(run.gpu_hours(0.4) / 32 / 24)
    assert row["ddp, GiB"] > row["checkpointing, GiB"] > row["fsdp, GiB"]
    assert row["fsdp, GiB"] == pytest.approx(run.memory(64, checkpointing=True, sharded_over=32) / 2**30)


def test_steps_are_timed_beside_a_matrix_product():
    runs = {"one": SMALL, "deeper": replace(SMALL, size=replace(SIZES["laptop"], depth=24))}
    found = time_steps(runs, images=2, steps=2)
    assert found["run"].to_list() == ["one", "deeper"] and (found["seconds"] > 0).all()
    flops = [2 * run.training_flops() / run.samples for run in runs.values()]
    assert (found["FLOP/s"] * found["seconds"]).to_list() == pytest.approx(flops) and flops[1] > flops[0]
    assert (found["of_peak"] > 0).all()
