"""Weights that somebody brings: whole ones get to where the loaders look, all others are refused, and say why."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
import torchvision
import torchxrayvision as xrv
from huggingface_hub import constants

from chexgen_lib.models import foundation, weights_catalogue, weights_layout, weights_store
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.models.weights_catalogue import CATALOGUE, File, WeightsFileError, asked_by, named
from chexgen_lib.quality.embedders import ClipEmbedder
from chexgen_lib.rehearsal import weights as stand_ins
from chexgen_lib.sampling.baseline import load_baseline
from chexgen_lib.workflow import dag
from chexgen_lib.workflow.notebooks import section_of
from tests.models.catalogue_stand_ins import stand_in


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Caches and records in a folder of the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights_store, "PINS", tmp_path / "records")
    monkeypatch.setattr(weights_store, "REQUESTED", tmp_path / "requested")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tiny weights of each layout of the hub."""
    folder = tmp_path_factory.mktemp("made")
    makers = {"sd-vae-ft-ema": stand_ins.autoencoder, "t5-v1_1-xxl": stand_ins.t5, "clip-vit-l14": stand_ins.clip}
    makers["roentgen"] = stand_ins.pipeline
    made = {name: make(folder / name) for name, make in makers.items()}
    stand_ins.autoencoder(folder / "sd-v1-5-vae" / "vae")
    return made | {"sd-v1-5-vae": folder / "sd-v1-5-vae"}


def test_each_weight_of_the_hub_is_found_after_it_was_added(made):
    for name, folder in made.items():
        weight = stand_in(name)
        assert weights_store.fault(weight) == weights_store.ABSENT
        path = weights_store.add(weight, folder)
        assert path == weights_store.find(weight) and weights_store.fault(weight, hashes=True) is None
        assert {p.relative_to(folder) for p in folder.rglob("*")} >= {p.relative_to(path) for p in path.rglob("*")}


def test_the_loaders_find_added_weights_by_their_ids_without_a_connection(made, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no autoencoder"):
        load_autoencoder("stabilityai/sd-vae-ft-ema")
    for name, folder in made.items():
        weights_store.add(stand_in(name), folder)
    for name in ("stabilityai/sd-vae-ft-ema", "stable-diffusion-v1-5/stable-diffusion-v1-5"):
        assert load_autoencoder(name).config.block_out_channels == [8] * 4
    assert load_baseline("StanfordAIMI/roent-gen-v1-0").unet.config.cross_attention_dim == 16
    assert ClipEmbedder()(np.zeros((1, 32, 32), np.float32)).shape == (1, 768)


def test_a_weight_of_one_file_gets_its_name_wherever_it_came_from(places):
    state = {"conv1.weight": torch.zeros(2)}
    torch.save(state, places / "mine.pth")
    weight = stand_in("imagenet-resnet50")
    path = weights_store.add(weight, places / "mine.pth")
    assert path == places / "torch/hub/checkpoints/resnet50-0676ba61.pth"
    assert torch.hub.get_dir() == str(places / "torch/hub")
    assert torch.equal(torch.load(path, weights_only=True)["conv1.weight"], state["conv1.weight"])


def test_a_released_checkpoint_is_kept_beside_the_data(places, shared):
    weight = named("chexgen-512")
    path = weights_store.add(weight, shared / "reference/t2i_tiny.pth")
    assert path == places / "requested/finetuned_impression_512.pth"


def test_where_torchxrayvision_and_torchvision_look():
    assert str(weights_store.place(named("xrv-all"))) == xrv.utils.get_cache_dir().rstrip("/")
    for name, variant in (("xrv-all", "all"), ("xrv-mimic", "mimic_ch")):
        assert named(name).source == xrv.models.model_urls[variant]["weights_url"]
        assert named(name).source.rsplit("/", 1)[1] == named(name).files[0].path
    sources = {weight.source for weight in CATALOGUE if weight.layout == "torchvision"}
    models = torchvision.models
    kinds = (models.DenseNet121_Weights, models.ResNet50_Weights, models.ResNet34_Weights)
    assert sources == {kind.IMAGENET1K_V1.url for kind in kinds}


def test_a_second_copy_takes_no_room(made):
    path = weights_store.add(stand_in("sd-vae-ft-ema"), made["sd-vae-ft-ema"])
    name = "diffusion_pytorch_model.safetensors"
    assert (path / name).samefile(made["sd-vae-ft-ema"] / name)


def test_a_disk_without_links_gets_a_copy(made, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    weight = stand_in("sd-vae-ft-ema")
    path = weights_store.add(weight, made["sd-vae-ft-ema"])
    assert not (path / "config.json").samefile(made["sd-vae-ft-ema"] / "config.json")
    assert weights_store.fault(weight, hashes=True) is None


def test_a_copy_that_fails_leaves_nothing(made, places, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="No space left"):
        weights_store.add(stand_in("sd-vae-ft-ema"), made["sd-vae-ft-ema"])
    assert not [path for path in (places / "hub").rglob("*") if path.is_file()]
    assert weights_store.fault(stand_in("sd-vae-ft-ema")) == weights_store.ABSENT


def test_too_little_room_is_said_beforehand(places):
    with pytest.raises(WeightsFileError, match="GB are needed"):
        weights_store.room_for(10**18, places / "new" / "folder")


@pytest.fixture
def broken(made, tmp_path):
    """A copy of tiny weights, to be broken."""
    return lambda name: shutil.copytree(made[name], tmp_path / f"broken-{name}")


def test_what_is_cut_off_is_refused(broken):
    for name, file in (("sd-vae-ft-ema", "diffusion_pytorch_model.safetensors"), ("t5-v1_1-xxl", "pytorch_model.bin")):
        folder = broken(name)
        whole = (folder / file).read_bytes()
        for length in (0, 5, 100, len(whole) - 1):
            (folder / file).write_bytes(whole[:length])
            with pytest.raises(WeightsFileError, match=f"{file} is (cut off|empty)"):
                weights_store.add(stand_in(name), folder)
        assert weights_store.fault(stand_in(name)) == weights_store.ABSENT


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("sd-vae-ft-ema", "config.json", "config.json is missing"),
        ("sd-vae-ft-ema", "diffusion_pytorch_model.safetensors", "lacks diffusion_pytorch_model"),
        ("clip-vit-l14", "preprocessor_config.json", "lacks preprocessor_config.json"),
        ("clip-vit-l14", "model.safetensors", "lacks model"),
        ("t5-v1_1-xxl", "spiece.model", "lacks tokenizer.json or spiece.model"),
        ("t5-v1_1-xxl", "pytorch_model.bin", "lacks model"),
        ("roentgen", "scheduler/scheduler_config.json", "scheduler_config.json is missing"),
        ("roentgen", "tokenizer/tokenizer.json", "tokenizer lacks tokenizer.json"),
        ("roentgen", "unet/config.json", "unet/config.json is missing"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(broken, name, file, reason):
    folder = broken(name)
    (folder / file).unlink()
    with pytest.raises(WeightsFileError, match=reason):
        weights_store.add(stand_in(name), folder)


def test_an_archive_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "clip.zip").write_bytes(b"PK")
    with pytest.raises(WeightsFileError, match="clip.zip is a file: unpack it, and give the folder"):
        weights_store.add(named("clip-vit-l14"), tmp_path / "clip.zip")


def test_another_model_and_another_size_are_refused(made):
    with pytest.raises(WeightsFileError, match="describes another model: model_type is 't5'"):
        weights_layout.check("clip", made["t5-v1_1-xxl"])
    with pytest.raises(WeightsFileError, match="of another size: d_model is 16, not 4096"):
        weights_store.add(stand_in("t5-v1_1-xxl", expects=named("t5-v1_1-xxl").expects), made["t5-v1_1-xxl"])


def test_shards_must_all_be_there(broken):
    folder = broken("t5-v1_1-xxl")
    shards = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    (folder / "pytorch_model.bin").rename(folder / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsFileError, match=f"{shards[1]} is missing"):
        weights_layout.check("text encoder", folder)
    shutil.copy(folder / shards[0], folder / shards[1])
    weights_layout.check("text encoder", folder)


def test_weights_must_have_the_digest_of_the_catalogue(made):
    path = "diffusion_pytorch_model.safetensors"
    size = (made["sd-vae-ft-ema"] / path).stat().st_size
    for file, reason in ((File(path, 17), "bytes, not 17"), (File(path, size, "0" * 64), "not 000000000000")):
        weight = stand_in("sd-vae-ft-ema", files=(File("config.json"), file))
        with pytest.raises(WeightsFileError, match=reason):
            weights_store.add(weight, made["sd-vae-ft-ema"])
        assert weights_store.find(weight) is None


def test_the_first_digits_of_a_digest_are_compared_and_the_rest_recorded(made):
    path = "diffusion_pytorch_model.safetensors"
    (whole,) = weights_store.digests({path: made["sd-vae-ft-ema"] / path})
    weight = stand_in("sd-vae-ft-ema", files=(File("config.json"), File(path, None, whole.sha256[:8])))
    weights_store.add(weight, made["sd-vae-ft-ema"])
    assert weights_store.known(weight)[path] == whole


def test_what_was_recorded_is_asked_for_again(made, broken):
    weight, folder = stand_in("clip-vit-l14"), broken("clip-vit-l14")
    weights_store.add(weight, made["clip-vit-l14"])
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsFileError, match="has the sha256 .* remove conf/weights/clip-vit-l14.json"):
        weights_store.add(weight, folder)
    record = json.loads((weights_store.PINS / "clip-vit-l14.json").read_text())
    assert {entry["path"] for entry in record["files"]} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_a_change_after_it_was_added_is_seen(made, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError()))
    weight = stand_in("clip-vit-l14")
    path = weights_store.add(weight, made["clip-vit-l14"]) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert weights_store.fault(weight) is None  # names, sizes and headers are as they were
    assert "sha256" in weights_store.fault(weight, hashes=True)
    path.write_bytes(content[:-4])
    assert "cut off" in weights_store.fault(weight)


def test_only_what_the_loader_reads_is_taken(broken):
    folder = broken("sd-vae-ft-ema")
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    (folder / "notes.md").write_text("mine")
    path = weights_store.add(stand_in("sd-vae-ft-ema"), folder)
    assert {p.name for p in path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_a_pipeline_of_pickles_is_sent_to_the_page_that_says_how_to_convert_it(broken):
    folder = broken("roentgen")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(WeightsFileError, match="it has diffusion_pytorch_model.bin: convert it, see docs/weights.md"):
        weights_store.add(stand_in("roentgen"), folder)


def test_of_a_whole_pipeline_the_autoencoder_is_taken(made):
    path = weights_store.add(stand_in("sd-v1-5-vae"), made["roentgen"])
    assert [p.name for p in path.iterdir()] == ["vae"]


def test_what_is_shipped_is_whole_and_cannot_be_added(tmp_path):
    for name in ("shipped-autoencoder", "shipped-foundation", "minilm"):
        assert weights_store.fault(named(name)) is None
        with pytest.raises(WeightsFileError, match="make env"):
            weights_store.add(named(name), tmp_path)


def test_a_profile_names_its_weights_and_the_settings_that_do():
    def read(profile):
        params = dag.plain(profile)
        sections = {section_of(stage) for stage in dag.stages(params)}
        return {weight.name: by for weight, by in asked_by({s: params[s] for s in sections}).items()}

    found = read("paper")
    starts = {"imagenet-densenet121", "rad-dino"}
    shipped = {"shipped-foundation"}  # that 14 edits with
    assert found.keys() == {"sd-v1-5-vae", "t5-v1_1-xxl", "clip-vit-l14", "xrv-all", "xrv-mimic"} | starts | shipped
    assert set(found["imagenet-densenet121"]) == {"supervised_pretraining.starts", "fairness.start"}
    assert found["xrv-mimic"] == ["quality.scorer"] and "scaling_laws.embedders" in found["xrv-all"]
    assert read("gpu").keys() == found.keys() - starts - {"sd-v1-5-vae"} | {"sd-vae-ft-ema"}


def test_every_setting_that_names_weights_is_known():
    """A setting of a profile whose value looks like an id of the hub is one that `asked_by` follows."""
    params = dag.plain("paper")
    ids = {w.source for w in CATALOGUE if w.store == "hub"}
    settings = {f"{s}.{k}" for s, v in params.items() if isinstance(v, dict) for k, x in v.items() if str(x) in ids}
    assert settings <= {setting for found in asked_by(params).values() for setting in found}


def test_generators_are_asked_for_unless_they_lie_here_as_something_else(tmp_path):
    (tmp_path / "images/text").mkdir(parents=True)
    (tmp_path / "images/text/labels.csv").touch()
    listed = {"baseline": None, "given": str(tmp_path / "images"), "ours": "shipped", "other": "owner/name"}
    listed["RoentGen"] = "StanfordAIMI/roent-gen-v1-0"
    found = {weight.name: by for weight, by in asked_by({"pools": {"generators": listed}}).items()}
    assert found == {"roentgen": ["pools.generators"], "owner/name": ["pools.generators"]}


def test_what_the_package_ships_is_nobodys_own():
    assert weights_catalogue.PACKAGED == foundation.PACKAGED
    others = ["shipped-adapter", "shipped-distilled"]
    params = {
        "pools": {"generators": others},
        "pretraining": {"weights": others},
        "counterfactuals": {"weights": others},
    }
    assert asked_by(params) == {}


def test_a_folder_of_the_users_own_is_checked_as_its_loader_needs(made, broken):
    folder = broken("sd-vae-ft-ema")
    params = {"cohort": {"autoencoder": str(folder), "text_encoder": "minilm"}, "baseline": {"weights": None}}
    own, shipped = asked_by(params)
    assert weights_store.fault(own) is None and shipped.name == "minilm"
    (folder / "config.json").unlink()
    assert "vae/config.json is missing" in weights_store.fault(own)
    (missing,) = asked_by({"cohort": {"autoencoder": str(folder / "nothing")}})
    assert weights_store.fault(missing) == weights_store.ABSENT


def test_an_editor_of_the_users_own_is_a_saved_pipeline_or_its_transformer(tmp_path):
    ChexGenTransformer.of_size("ci", sample_size=4, text_dim=32).save_pretrained(tmp_path / "transformer")
    for folder in (tmp_path, tmp_path / "transformer"):
        (own,) = asked_by({"counterfactuals": {"weights": str(folder)}})
        assert weights_store.fault(own) is None
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert "transformer lacks diffusion_pytorch_model" in weights_store.fault(own)
