"""Settings beside a profile: every path is taken as it is written, and nothing is merged or retyped in silence."""

import os
import subprocess

import pytest

from chexgen_lib.workflow import dag, notebooks, settings
from chexgen_lib.workflow.notebooks import NotebookError


def composed(tmp_path, *overrides, profile="laptop"):
    return dag.compose(profile, tmp_path / "params.yaml", overrides)


PATHS = [
    "/data/my images",
    "/data/CheXpert (train 1)",
    "/data/[old] {new}",
    "/data/radiología",
    "/data/肺",
    "/data/nih=v2",
    "/data/nih v2/part=1/x",
    "/data/a, b",
    "/data/Anna's",
    '/data/the "old" ones',
    "/data/~me#1;&!",
    "2024_01",
    "007",
    "1e3",
    "no",
    "true",
    "2024-01-01",
    "12:30",
    "batch(1)",
    r"C:\data\nih",
    r"\\server\share\nih",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_is_written(path, tmp_path):
    together = settings.split(f"seed=1 curation.image_folder={path} figures_dir=f", dag.plain("laptop"))
    assert together == ["seed=1", f"curation.image_folder={path}", "figures_dir=f"]
    params = composed(tmp_path, *together)
    assert params["curation"]["image_folder"] == path and params["seed"] == 1
    assert params["cohort"]["image_root"] == path


def test_quotes_of_hydra_still_work(tmp_path):
    together = settings.split("""curation.image_folder='/data/a seed=2' root="runs/x y" """, dag.plain("laptop"))
    params = composed(tmp_path, *together)
    assert (params["curation"]["image_folder"], params["root"]) == ("/data/a seed=2", "runs/x y")
    assert (
        composed(tmp_path, r"curation.image_folder=/data/my\ images")["curation"]["image_folder"] == "/data/my images"
    )
    assert composed(tmp_path, "root=runs/${profile}-2")["root"] == "runs/laptop-2"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("synthesis.int8", "false", False),
        ("alignment.training.steps", "1_000", 1000),
        ("alignment.training.learning_rate", "1", 1),
        ("alignment.training.learning_rate", "1e-4", 1e-4),
        ("curation.split_fractions", "[0.6, 0.2,0.2]", [0.6, 0.2, 0.2]),
        ("cohort.stage1_sources", "[nih]", ["nih"]),
        ("cohort.stage1_sources", "[]", []),
        ("curation.budget", "12.5", 12.5),
        ("curation.rows_per_source", "50", 50),
        ("curation.rows_per_source", "null", None),
        ("pools.fairness.shares", "null", None),
        ("pools.fairness.shares.view", "{AP: 0.5,PA: 0.5}", {"AP": 0.5, "PA": 0.5}),
        ("scaling_laws.model", "ci", "ci"),
        ("curation.writer", "{model: m, base_url: 'http://127.0.0.1:1/v1'}", {"model": "m", "base_url": "http://127.0.0.1:1/v1"}),
    ],
)  # fmt: skip
def test_values_of_the_profiles_types_are_taken(key, text, value, tmp_path):
    found = composed(tmp_path, f"{key}={text}")
    for name in key.split("."):
        found = found[name]
    assert found == value and type(found) in (type(value), int)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("synthesis.int8=no", "true or false.*synthesis.int8=true or synthesis.int8=false"),
        ("synthesis.int8=0", "true or false"),
        ("alignment.training.steps=many", "a whole number"),
        ("alignment.training.steps=2000.5", "a whole number"),
        ("alignment.training.steps=2e3", "write alignment.training.steps=2000"),
        ("alignment.training.steps=true", "a whole number"),
        ("alignment.training.steps=", "a whole number"),
        ("alignment.training.learning_rate=fast", "a number"),
        ("seed=null", "a whole number"),
        ("root=", "SET=\"root=''\""),
        ("root=[a]", r"SET=\"root='\[a\]'\""),
        ("baseline.weights=2024_01", 'SET="baseline.weights=\'2024_01\'", for a number SET="baseline.weights=202401"'),
        ("cohort.stage1_sources=nih", r"write cohort.stage1_sources=\[nih\]"),
        ("cohort.stage1_sources=nih,chexpert", r"write cohort.stage1_sources=\[nih,chexpert\]"),
        ("cohort.stage1_sources=[2024_01]", "in quotes"),
        ("alignment=5", "alignment.NAME=value"),
        ("pools.fairness.shares={}", r"merged.*~pools.fairness.shares \+pools.fairness.shares=\{\}"),
        ("pools.fairness.shares.view={AP: 1.0}", "PA would stay"),
        ("+pools.fairness.shares={}", "merged"),
        ("++synthesis.int8=no", "true or false"),
        ("pools.fairness.shares.view={AP: much, PA: 0.5}", "shares.view.AP=much.*a number"),
        ("alignment.training.step=3", "no setting 'alignment.training.step' .did you mean alignment.training.steps"),
        (
            "pools.fairness.shares.view={AP: 0.5, PA: 0.4, LATERAL: 0.1}",
            r'no LATERAL there.*SET="\+\+pools.*view={AP: 0',
        ),
        ("curation.split_fractions=[0.6;0.2;0.2]", r"write curation.split_fractions=\[0.6,0.2,0.2\]$"),
        ("cohort.stage1_sources=null", r"write cohort.stage1_sources=\[\]$"),
        ("cohort.stage1_sources=[null]", "and None is none$"),
        ("curation.writer={'model': 'm'}", "a mapping is {name: value}, its names without quotes"),
        ("curation.writer={model: 2024_01}", "2024_01 is a text or a number: write '2024_01'"),
        ("+generators.Mine=2024_01", "SET=\"\\+generators.Mine='2024_01'\""),
        ("~generators.base", "no setting 'generators.base' .did you mean generators.baseline"),
        ("pretraining.weights=None", "for nothing write pretraining.weights=null, for the text SET=.*='None'"),
        ("cohort.reserved=None", "write cohort.reserved=null$"),
        ("augmentation.steps=none", "write augmentation.steps=null$"),
        ("profile=ci", "PROFILE=ci"),
        ("seed", "write section.key=value"),
        ("root=${nothing.there}", "laptop.*nothing"),
    ],
)
def test_what_would_be_merged_or_retyped_is_refused_with_the_form_that_works(setting, message, tmp_path):
    (tmp_path / "params.yaml").write_text("as before")
    with pytest.raises(NotebookError, match=message):
        composed(tmp_path, setting)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert (tmp_path / "params.yaml").read_text() == "as before"


def test_a_new_setting_takes_every_path(tmp_path):
    paths = {f"P{i}": path for i, path in enumerate(PATHS) if path not in ("2024_01", "1e3", "true")}
    together = settings.split(" ".join(f"+generators.{name}={path}" for name, path in paths.items()), {})
    assert composed(tmp_path, *together)["generators"] == {"baseline": None} | paths


def test_a_setting_that_is_null_can_be_left_out(tmp_path):
    assert dag.plain("laptop")["generators"] == {"baseline": None}
    assert composed(tmp_path, "~generators.baseline")["generators"] == {}
    assert composed(tmp_path, "~generators.baseline", "+generators.Mine=/a b")["generators"] == {"Mine": "/a b"}


def test_a_setting_is_given_once(tmp_path):
    with pytest.raises(NotebookError, match="seed is given twice, and one of its values would be lost"):
        composed(tmp_path, "seed=1", "++seed=2")


@pytest.mark.parametrize("shares", [{}, {"view": {"AP": 1.0}}])
def test_the_form_that_replaces_a_mapping_works(shares, tmp_path):
    written = str(shares).replace("'", "")
    text = f"~pools.fairness.shares +pools.fairness.shares={written} seed=1"
    together = settings.split(text, dag.plain("laptop"))
    assert composed(tmp_path, *together)["pools"]["fairness"]["shares"] == shares


def test_a_word_that_may_be_a_setting_or_belong_to_a_path(tmp_path):
    text = f"curation.image_folder={tmp_path}/a b=c seed=1"
    with pytest.raises(NotebookError, match=r"no setting 'b'.*into quotes: SET=\"curation.image_folder='.*/a b=c'\""):
        settings.split(text, dag.plain("laptop"))
    (tmp_path / "a b=c").mkdir()
    assert settings.split(text, dag.plain("laptop")) == [f"curation.image_folder={tmp_path}/a b=c", "seed=1"]
    with pytest.raises(NotebookError, match="'images' is no setting"):
        settings.split("images seed=1", dag.plain("laptop"))


def test_a_profile_that_does_not_exist_is_named_in_our_words():
    with pytest.raises(NotebookError, match="^no profile 'nope' in conf/profile; there are: ci, .*laptop"):
        dag.plain("nope")


@pytest.mark.parametrize("profile", dag.profiles())
def test_profiles_have_the_types_of_the_notebooks(profile):
    for name in dag.stages({}):
        defaults = notebooks.declared(notebooks.read(notebooks.path_of(name)), name)
        notebooks.check_types(name, defaults, notebooks.stage_parameters(name, defaults, dag.plain(profile)))


@pytest.mark.parametrize(
    "values", [{"int8": "no"}, {"int8": 1}, {"steps": "5"}, {"steps": True}, {"rate": "a"}, {"names": "a"}, {"root": 5}]
)
def test_a_stage_refuses_values_that_were_retyped_on_another_way(values):
    defaults = {"int8": True, "steps": 5, "rate": 0.1, "names": ["a"], "root": "runs/ci", "folder": None}
    given = {"int8": False, "steps": 6.0, "rate": 1, "names": [], "root": {"depth": 1}, "folder": 3}
    notebooks.check_types("01_x", defaults, given)
    notebooks.check_types("01_x", defaults, dict.fromkeys(defaults))
    with pytest.raises(NotebookError, match=f"01_x: params.yaml has .* for {next(iter(values))}, .* of that type"):
        notebooks.check_types("01_x", defaults, given | values)


@pytest.mark.parametrize("mark", [",", ";"])
def test_settings_are_separated_by_spaces_alone(mark):
    with pytest.raises(NotebookError, match=f"'root=runs/a{mark}' ends in '{mark}': settings are separated by spaces"):
        settings.split(f"root=runs/a{mark} seed=1", dag.plain("laptop"))
    for root in (f"'runs/a{mark}'", f"runs/a{mark}b"):
        assert settings.split(f"root={root} seed=1", dag.plain("laptop")) == [f"root={root}", "seed=1"]


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/me too")
    params = composed(tmp_path, "curation.image_folder=~/films (1)", "+generators.Mine=~/a")
    assert params["curation"]["image_folder"] == "/srv/me too/films (1)"
    assert params["generators"]["Mine"] == "/srv/me too/a"


def test_settings_may_go_over_lines():
    together = settings.split("seed=1 \\\n  root=runs/a\n figures_dir=b", dag.plain("laptop"))
    assert together == ["seed=1", "root=runs/a", "figures_dir=b"]


def test_make_tells_dvc_where_there_is_no_git(root, tmp_path):
    makefile = (root / "Makefile").read_text().replace("$(BIN)/dvc", "echo").replace("dvc: .venv/.complete", "dvc:")
    (tmp_path / "Makefile").write_text(makefile)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "GIT_"))}
    clean["GIT_CEILING_DIRECTORIES"] = str(tmp_path.parent)  # it may lie within a repository
    said = []
    for command in (["make", "dvc"], ["git", "init", "-q"], ["make", "-s", "dvc"]):
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
        said.append(done.stdout.strip())
    assert said == ["config --local core.no_scm true", "", ""]


def test_make_hands_set_on_as_it_is(root, tmp_path):
    given = 'root=runs/${profile} curation.image_folder=/data/it\'s "a" (1) $x {a,b}'
    makefile = (root / "Makefile").read_text().replace("$(BIN)/python -m chexgen_lib.workflow.dag", "@printf '%s\\n'")
    (tmp_path / "Makefile").write_text(makefile.replace("params: .venv/.complete", "params:"))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # of `make test`
    command = ["make", "params", f"SET={given}"]
    made = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == ["params", "laptop", "--set", given]
