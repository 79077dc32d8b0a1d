"""params.yaml is the laptop profile; all profiles have the same keys; notebooks default to ci."""

import pytest

from chexgen_lib.workflow import dag, notebooks
from chexgen_lib.workflow.notebooks import NotebookError


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("params")
    return {profile: dag.compose(profile, folder / f"{profile}.yaml") for profile in dag.profiles()}


def keys(params):
    return {(k, inner) for k, v in params.items() for inner in (v if isinstance(v, dict) else [None])}


def test_params_yaml_is_the_laptop_profile(root, tmp_path):
    dag.compose("laptop", tmp_path / "params.yaml")
    written = (tmp_path / "params.yaml").read_text()
    assert (root / "params.yaml").read_text() == written, "run `make params`"


def test_profiles_of_the_design_exist():
    assert {"laptop", "ci", "nih-mini", "gpu", "paper"} <= set(dag.profiles())


def test_profiles_are_written_out_in_full(composed):
    for profile, params in composed.items():
        assert keys(params) == keys(composed["laptop"]), profile
        assert params["profile"] == profile
        assert params["root"] == f"runs/{profile}"


def test_profiles_write_to_places_of_their_own(composed):
    places = [params["figures_dir"] for params in composed.values()]
    assert len(set(places)) == len(places)


def test_interpolations_are_resolved(composed):
    assert "${" not in str(composed)


@pytest.mark.parametrize("name", list(dag.stages({})))
def test_notebook_defaults_are_the_ci_profile(name, composed):
    if name not in notebooks.names():
        pytest.skip(f"{name} is not written yet")
    defaults = notebooks.declared(notebooks.read(notebooks.path_of(name)), name)
    assert defaults == notebooks.stage_parameters(name, defaults, composed["ci"])


def test_paper_profile_is_extended_data_table_4(composed):
    paper, gpus = composed["paper"], 32
    cohort = paper["cohort"]
    assert (cohort["low_resolution"], cohort["high_resolution"], cohort["text_tokens"]) == (256, 512, 120)
    assert (cohort["stage1_train"], cohort["stage2_train"]) == (959_206, 45_000)
    for stage, pairs, batch, epochs in (("pretraining", 959_206, 192, 800), ("alignment", 45_000, 64, 300)):
        section = paper[stage]
        assert section["batch_size"] == batch
        assert section["steps"] * batch * gpus == pytest.approx(epochs * pairs, abs=batch * gpus)
        assert (section["learning_rate"], section["weight_decay"], section["clip_norm"]) == (1e-4, 0.01, 1.0)
        assert section["precision"] == "bf16"


def test_unknown_profile_is_named(tmp_path):
    with pytest.raises(NotebookError, match="'desktop'.*laptop"):
        dag.compose("desktop", tmp_path / "params.yaml")


def test_overrides_are_applied_and_unknown_ones_named(tmp_path):
    overrides = ["curation.image_folder=elsewhere", "seed=3"]
    params = dag.compose("nih-mini", tmp_path / "params.yaml", overrides)
    assert (params["curation"]["image_folder"], params["data"], params["seed"]) == (
        "elsewhere",
        "elsewhere",
        3,
    )
    with pytest.raises(NotebookError, match="curation.imagefolder"):
        dag.compose("nih-mini", tmp_path / "params.yaml", ["curation.imagefolder=elsewhere"])
