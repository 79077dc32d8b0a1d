"""params.yaml is the laptop profile; profiles say only what differs; notebooks default to ci."""

from contextlib import nullcontext

import pytest

from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.workflow import dag, notebooks
from chexgen_lib.workflow.notebooks import NotebookError


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("params")
    return {profile: dag.compose(profile, folder / f"{profile}.yaml") for profile in dag.profiles()}


def keys(params, depth=2):
    """Paths of the keys of sections, and of their trainers' settings."""
    inner = {k: keys(v, depth - 1) for k, v in params.items() if isinstance(v, dict) and (depth > 1 or k == "training")}
    return {(k, *path) for k in params for path in inner.get(k, [()])}


def as_trained(values):
    """Values of a stage, its trainer's settings with the defaults of those that are not given."""
    return values | ({"training": TrainingConfig(**values["training"])} if "training" in values else {})


def test_params_yaml_is_the_laptop_profile(root, tmp_path):
    dag.compose("laptop", tmp_path / "params.yaml")
    written = (tmp_path / "params.yaml").read_text()
    assert (root / "params.yaml").read_text() == written, "run `make params`"


def test_profiles_of_the_design_exist():
    assert {"laptop", "ci", "nih-mini", "gpu", "paper"} <= set(dag.profiles())


def test_every_profile_has_every_key(composed):
    for profile, params in composed.items():
        assert keys(params) == keys(composed["laptop"]), profile
        assert params["profile"] == profile
        assert params["root"] == f"runs/{profile}"


def test_profiles_write_to_places_of_their_own(composed):
    places = [params["figures_dir"] for params in composed.values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("profile", dag.profiles())
def test_every_input_of_a_run_is_made_by_a_stage_whatever_the_sizes(profile, tmp_path):
    params = dag.compose(profile, tmp_path / "params.yaml", ["cohort.high_resolution=1024", "root=runs/mine"])
    stages = dag.stages(params).values()
    made = {path for stage in stages for path in dag.output_paths(stage)} | {"runs/mine/data.csv"}  # of stage data
    own = {dep for stage in stages for dep in stage["deps"] if dep.startswith((params["root"], params["figures_dir"]))}
    assert own <= made
    assert params["quality"]["resolution"] == params["cohort"]["high_resolution"]


def test_interpolations_are_resolved(composed):
    assert "${" not in str(composed)


@pytest.mark.parametrize("name", notebooks.names())
def test_notebook_defaults_are_the_ci_profile(name, composed):
    defaults = notebooks.declared(notebooks.read(notebooks.path_of(name)), name)
    assert as_trained(defaults) == as_trained(notebooks.stage_parameters(name, defaults, composed["ci"]))


def merged(base, overlay):
    """As Hydra merges: mappings key by key, anything else as a whole."""
    both = base.keys() & overlay.keys()
    inner = {key: merged(base[key], overlay[key]) for key in both if isinstance(base[key], dict)
             and isinstance(overlay[key], dict)}  # fmt: skip
    return base | overlay | inner


def restated(overlay, base, path=()):
    """Paths of an overlay's values that are the same in the base."""
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            yield from restated(value, base[key], (*path, key))
        elif key in base and base[key] == value and key != "defaults":
            yield ".".join((*path, key))


@pytest.mark.parametrize("group", ["profile", "training"])
def test_profiles_say_only_what_differs(root, group):
    files = {path.stem: notebooks.load_yaml(path) for path in (root / "conf" / group).glob("*.yaml")}
    assert files.keys() == set(dag.profiles())
    for profile in files.keys() - {"laptop"}:
        (above, *_), base = files[profile]["defaults"], {}
        for name in ["laptop", above]:
            base = merged(base, files[name])
        assert not list(restated(files[profile], base)), profile


def test_a_trainer_setting_of_the_profile_reaches_every_training(root, composed):
    known = notebooks.load_yaml(root / "conf/training/laptop.yaml").keys() | {"steps"}
    trained = [section["training"] for section in composed["gpu"].values() if "training" in (section or ())]
    assert len(trained) == 9 and all(settings.keys() >= known for settings in trained)


def test_paper_profile_is_extended_data_table_4(composed):
    paper, gpus = composed["paper"], 32
    cohort = paper["cohort"]
    assert (cohort["low_resolution"], cohort["high_resolution"], cohort["text_tokens"]) == (256, 512, 120)
    assert (cohort["stage1_train"], cohort["stage2_train"]) == (959_206, 45_000)
    for stage, pairs, batch, epochs in (("pretraining", 959_206, 192, 800), ("alignment", 45_000, 64, 300)):
        section = paper[stage]["training"]
        assert section["batch_size"] == batch
        assert section["steps"] * batch * gpus == pytest.approx(epochs * pairs, abs=batch * gpus)
        assert (section["learning_rate"], section["weight_decay"], section["clip_norm"]) == (1e-4, 0.01, 1.0)
        assert section["precision"] == "bf16"


def test_unknown_profile_is_named(tmp_path):
    for composing in (lambda: dag.compose("desktop", tmp_path / "params.yaml"), lambda: dag.plain("desktop")):
        with pytest.raises(NotebookError, match="no profile 'desktop'.*laptop"):
            composing()


def test_folders_that_are_not_there_are_named_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dag, "ROOT", tmp_path)
    (tmp_path / "films").mkdir()
    composed = {"curation": {"image_folder": "films", "data_root": None}, "annotation_to_image": {"lung_masks": "x"}}
    monkeypatch.setattr(dag, "compose", lambda *_: composed)
    monkeypatch.setattr("sys.argv", ["dag", "params", "nih-mini"])
    dag.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: annotation_to_image.lung_masks names x, where there is no folder")
    assert dag.absent({"curation": {"image_folder": "films"}}) == []  # a profile whose other sections were removed


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


def test_a_folder_of_images_is_read_from_in_every_profile(composed, tmp_path):
    """Else a run on the user's films would be one on rendered chests, and nothing would say so."""
    assert composed["laptop"]["cohort"]["image_root"] is None
    for profile in ("laptop", "nih-mini", "gpu"):
        params = dag.compose(profile, tmp_path / "params.yaml", [f"curation.image_folder={tmp_path}"])
        assert params["cohort"]["image_root"] == params["autoencoder"]["image_root"] == str(tmp_path)
        said = [line.split(",")[0] for line in dag.absent(params) if "PROFILE=nih-mini" in line]
        assert len(said) == 2 * (profile != "nih-mini"), said


@pytest.mark.parametrize("root", ["/scratch/me/run", "../run", "runs/../../run"])
def test_a_run_outside_of_the_repository_is_refused_before_it_begins(root, tmp_path):
    """DVC refuses to keep it, when the first stage has run."""
    (tmp_path / "params.yaml").write_text("as before")
    with pytest.raises(NotebookError, match=f"root={root}: /.*run is outside of the repository.*clone the repository"):
        dag.compose("ci", tmp_path / "params.yaml", [f"root={root}"])
    assert (tmp_path / "params.yaml").read_text() == "as before"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("root=chexgen_lib/mine", "holds the repository's own files"),
        ("root=.", "holds the repository's own files"),
        ("alignment.training.steps=0", "alignment.training: steps must be a positive integer"),
        ("pretraining.training.learning_rate=nan", "pretraining.training: learning_rate must be positive and finite"),
        ("seed=-1", "seed must be 0 or a positive integer"),
    ],
)
def test_values_that_a_later_stage_would_refuse_are_refused_at_once(given, words, tmp_path):
    (tmp_path / "params.yaml").write_text("as before")
    with pytest.raises(NotebookError, match=words):
        dag.compose("paper", tmp_path / "params.yaml", [given])
    assert (tmp_path / "params.yaml").read_text() == "as before"


@pytest.mark.parametrize("git", [True, False])
def test_a_link_out_of_the_repository_is_refused_where_dvc_minds_it(git, tmp_path, monkeypatch):
    for name in ("scratch", "repository/runs/paper", *["repository/.git"] * git):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "repository/runs/mine").symlink_to(tmp_path / "scratch")
    monkeypatch.setattr(dag, "ROOT", tmp_path / "repository")
    dag._check_root("runs/paper")
    dag._check_root("runs/new")
    with pytest.raises(NotebookError, match="scratch/a is outside") if git else nullcontext():
        dag._check_root("runs/mine/a")
