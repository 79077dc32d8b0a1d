"""`chexgen weights`, and `make repro` that asks it before the first stage."""

import dataclasses
import os
import subprocess

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from chexgen_lib.cli import weights
from chexgen_lib.cli.main import main
from chexgen_lib.models import weights_catalogue, weights_store
from chexgen_lib.rehearsal import weights as stand_ins
from chexgen_lib.workflow import dag
from tests.models.catalogue_stand_ins import stand_in
from tests.models.hub_server import HubServer

GPU = {"sd-vae-ft-ema", "t5-v1_1-xxl", "clip-vit-l14", "xrv-all", "xrv-mimic"}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Caches and records in a folder of the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights_store, "PINS", tmp_path / "records")
    monkeypatch.setattr(weights_store, "REQUESTED", tmp_path / "requested")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    """A catalogue of tiny weights; the names, files and sources are those of the real one."""
    catalogue = tuple(stand_in(w.name) if w.store != "shipped" else w for w in weights_catalogue.CATALOGUE)
    monkeypatch.setattr(weights_catalogue, "CATALOGUE", catalogue)


def names(text: str) -> set[str]:
    return {line.split()[1] for line in text.splitlines() if line.startswith("missing: ")}


@pytest.mark.parametrize("profile", ["gpu", "paper"])
def test_check_lists_what_is_missing_with_the_command_that_gets_it(profile, capsys):
    assert main(["weights", "check", "--profile", profile]) == 1
    shown = capsys.readouterr()
    starts = {"imagenet-densenet121", "rad-dino"}  # of classifiers
    wanted = GPU if profile == "gpu" else GPU - {"sd-vae-ft-ema"} | {"sd-v1-5-vae"} | starts
    assert names(shown.err) == wanted and f"profile {profile}: 1 of {1 + len(wanted)}" in shown.out
    for name in wanted:
        assert f"chexgen weights fetch {name}\n" in shown.err
    assert "t5-v1_1-xxl (44.5 GB, Apache-2.0)" in shown.err and "read by 07_quality\n" in shown.err


@pytest.mark.parametrize("profile", ["laptop", "ci"])
def test_nothing_is_missing_for_the_profiles_without_downloads(profile, capsys):
    assert main(["weights", "check", "--profile", profile, "--hashes"]) == 0
    assert "3 of 3" in capsys.readouterr().out


def test_check_asks_only_for_what_the_stages_need(capsys):
    assert main(["weights", "check", "--profile", "gpu", "--stages", "01_curation"]) == 0
    assert main(["weights", "check", "--profile", "gpu", "--stages", "03_pretraining"]) == 1
    assert names(capsys.readouterr().err) == {"sd-vae-ft-ema", "t5-v1_1-xxl"}
    assert main(["weights", "check", "--profile", "gpu", "--stages", "12_rectified_flow"]) == 1
    assert "xrv-all" in names(capsys.readouterr().err)
    assert main(["weights", "check", "--stages", "14_nothing"]) == 2
    assert "no stage '14_nothing'" in capsys.readouterr().err


def test_the_stages_that_a_stage_needs():
    stages = dag.stages(dag.plain("laptop"))
    assert dag.with_needed(["01_curation"], stages) == ["01_curation"]
    assert dag.with_needed(["04_alignment"], stages) == ["01_curation", "02_cohort", "03_pretraining", "04_alignment"]
    assert dag.with_needed([], stages) == list(stages)


def test_what_is_damaged_is_missing_and_the_file_is_named(tiny, places, capsys):
    folder = stand_ins.autoencoder(places / "vae")
    assert main(["weights", "add", "sd-vae-ft-ema", str(folder)]) == 0
    check = ["weights", "check", "--profile", "gpu", "--stages", "02_cohort"]
    assert main(check) == 1
    assert names(capsys.readouterr().err) == {"t5-v1_1-xxl"}
    path = weights_store.find(weights_catalogue.named("sd-vae-ft-ema")) / "config.json"
    path.unlink()  # linked to the folder above
    assert main(check) == 1
    assert f"{path.parent}/vae/config.json is missing" in capsys.readouterr().err


def test_fetch_all_that_a_profile_reads(tiny, places, monkeypatch, capsys):
    published = stand_ins.autoencoder(places / "published")
    with HubServer("stabilityai/sd-vae-ft-ema", published).running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # the hub has nothing else, and nobody answers for the rest: that does not keep away the one that is there
        elsewhere = {weight: "http://127.0.0.1:9/x.pt" for weight in ("xrv-all", "xrv-mimic")}
        catalogue = [
            dataclasses.replace(w, source=elsewhere.get(w.name, w.source)) for w in weights_catalogue.CATALOGUE
        ]
        monkeypatch.setattr(weights_catalogue, "CATALOGUE", catalogue)
        assert main(["weights", "fetch", "--profile", "gpu"]) == 1
        shown = capsys.readouterr()
        assert len([line for line in shown.err.splitlines() if line.startswith("chexgen: ")]) == 4
        server.asked.clear()
        assert main(["weights", "fetch", "sd-vae-ft-ema"]) == 0 and not server.asked
    assert "sd-vae-ft-ema: whole, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fetch", "sd-vae"], "no weights 'sd-vae': choose from shipped-autoencoder, "),
        (["fetch"], "give the names of weights, or a profile"),
        (["check", "--profile", "gpus"], "no profile 'gpus'"),
        (["add", "clip-vit-l14", "/nowhere"], "/nowhere does not exist"),
        (["add", "minilm", "/tmp"], "comes with the environment"),
    ],
)
def test_bad_commands_are_explained_in_a_line(arguments, said, capsys):
    assert main(["weights", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["clip-vit-l14", "sd-vae-ft-ema", "xrv-mimic", "roentgen", "chexgen-512"])
def test_a_folder_that_holds_something_else_is_refused_with_the_remedy(name, places, capsys):
    (places / "other").mkdir()
    assert main(["weights", "add", name, str(places / "other")]) == 2
    error = capsys.readouterr().err
    assert f"{places / 'other'}/" in error and error.count("\n") == 1
    assert (
        f"give the folder that holds {name} whole, or get it: " in error and f" {name}" in error.rpartition("it: ")[2]
    )


def test_a_file_that_the_loader_cannot_read_is_not_added(places, capsys):
    for name in ("xrv-mimic", "chexgen-512"):
        torch.save({"weight": torch.zeros(3)}, places / "file.pt")
        assert main(["weights", "add", name, str(places / "file.pt")]) == 2
        assert "file.pt" in capsys.readouterr().err
        assert weights_store.find(weights_catalogue.named(name)) is None


def test_the_list_tells_size_licence_digest_and_readers(capsys):
    assert main(["weights", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {weight.name for weight in weights_catalogue.CATALOGUE} < lines.keys()
    assert "1.7 GB" in lines["clip-vit-l14"] and "a2bf730a" in lines["clip-vit-l14"]
    assert "gpu, paper" in lines["clip-vit-l14"] and "not there" in lines["clip-vit-l14"]
    assert main(["weights", "list", "--profile", "laptop"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {
        "name",
        "shipped-autoencoder",
        "shipped-foundation",
        "minilm",
    }


def test_make_repro_checks_the_weights_before_the_first_stage(root):
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--dry-run", "--assume-old=.venv/.complete", "repro", "PROFILE=gpu", "STAGE=-f 07_quality"]
    lines = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    params, dvc, check, repro = lines.splitlines()[-4:]
    assert "dvc config --local core.no_scm true" in dvc
    assert "dag params 'gpu'" in params and repro.endswith("dvc repro -f 07_quality")
    assert check.endswith("-m chexgen_lib.cli weights check --trial --stages 07_quality")


def test_a_generator_that_makes_no_image_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    folder, params = stand_ins.pipeline(tmp_path / "roentgen"), dag.plain("ci")
    params["baseline"]["weights"] = str(folder)
    monkeypatch.setattr(weights, "_params", lambda profile: params)
    check = ["weights", "check", "--trial", "--stages", "04_baseline"]
    assert main(check) == 0 and f"{folder}: made an image in one step" in capsys.readouterr().out
    (path,) = (folder / "vae").glob("*.safetensors")
    save_file({name: tensor * torch.nan for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    assert main(check[:2] + check[3:]) == 0  # whole, as far as names and sizes tell
    capsys.readouterr()
    assert main(check) == 2
    assert "roentgen): a trial of one step gave values that are not finite" in capsys.readouterr().err
