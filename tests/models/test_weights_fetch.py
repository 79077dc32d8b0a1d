"""Weights over the network: whole and as stated, or one error and nothing under their name."""

import errno
import json
import shutil

import pytest
import torch
from huggingface_hub import constants, file_download

from chexgen_lib.models import weights_store
from chexgen_lib.models.weights_catalogue import File, WeightsFileError, named
from chexgen_lib.models.weights_fetch import fetch, remedy
from chexgen_lib.rehearsal import weights as stand_ins
from tests.models.catalogue_stand_ins import stand_in
from tests.models.hub_server import COMMIT, HubServer

TENSORS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Caches and records in a folder of the test, and no waiting before another try."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights_store, "PINS", tmp_path / "records")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    return tmp_path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = stand_ins.autoencoder(tmp_path_factory.mktemp("published"))
    (folder / "README.md").write_text("a card that no loader reads")
    torch.save({"conv1.weight": torch.zeros(500)}, folder / "weights.pt")
    (folder / "page.pt").write_text("<html>Please log in</html>")
    return folder


@pytest.fixture
def hub(published, monkeypatch):
    with HubServer("stabilityai/sd-vae-ft-ema", published).running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def vae():
    return stand_in("sd-vae-ft-ema")


def plain(hub, name="weights.pt", **stated):
    """A weight of one file at an address of the server."""
    return stand_in("xrv-all", source=f"{hub.url}/plain/{name}", files=(File(name, **stated),))


def test_fetched_weights_are_where_the_loaders_look_and_on_record(hub, vae, published):
    path = fetch(vae)
    assert path == weights_store.find(vae) and path.name == COMMIT
    assert weights_store.fault(vae, hashes=True) is None
    assert {p.name for p in path.iterdir()} == {"config.json", TENSORS}  # no card, no second copy
    record = json.loads((weights_store.PINS / "sd-vae-ft-ema.json").read_text())
    (whole,) = weights_store.digests({TENSORS: published / TENSORS})
    assert record["revision"] == COMMIT and record["files"][1]["sha256"] == whole.sha256


def test_a_commit_of_the_catalogue_or_of_the_record_is_what_is_fetched(hub, vae):
    fetch(stand_in("sd-vae-ft-ema", revision=COMMIT))
    assert not [line for line in hub.asked if "/revision/" in line]
    assert weights_store.find(vae).name == COMMIT  # the loaders ask for `main`
    hub.asked.clear()
    fetch(vae)
    assert not [line for line in hub.asked if "/revision/" in line]


def test_a_folder_to_carry_is_what_add_takes(hub, vae, places):
    folder = fetch(vae, places / "stick")
    assert folder == places / "stick/sd-vae-ft-ema" and weights_store.find(vae) is None
    assert {p.name for p in folder.iterdir()} == {"config.json", TENSORS}
    assert weights_store.add(vae, folder) == weights_store.find(vae)


def test_damaged_weights_are_removed(hub, vae, places):
    hub.fault = "damaged"
    with pytest.raises(WeightsFileError, match="arrived damaged"):
        fetch(vae)
    assert not list((places / "hub").rglob(TENSORS))
    assert weights_store.fault(vae) is not None and not list(places.glob("records/*"))
    hub.fault = None
    fetch(vae)
    assert weights_store.fault(vae, hashes=True) is None


def test_other_weights_than_those_on_record_are_removed(hub, vae, places):
    whole = weights_store.digests({TENSORS: hub.folder / TENSORS})[0]
    weights_store.record(vae, None, [File(TENSORS, whole.size, "0" * 64)])
    with pytest.raises(WeightsFileError, match="not 000000000000.*remove conf/weights/sd-vae-ft-ema.json"):
        fetch(vae)
    assert weights_store.fault(vae) is not None


def test_after_an_interruption_only_the_rest_is_fetched(hub, vae, places):
    hub.fault, hub.left = "cut", 1500
    with pytest.raises(WeightsFileError, match="sd-vae-ft-ema: "):
        fetch(vae)
    assert weights_store.fault(vae) is not None and not list(places.glob("records/*"))
    assert not list((places / "hub").rglob(TENSORS))
    hub.fault = None
    hub.asked.clear()
    fetch(vae)
    assert weights_store.fault(vae, hashes=True) is None
    files = {line.split()[1].rpartition("/")[2] for line in hub.asked if line.startswith("GET") and "resolve" in line}
    assert files == {TENSORS}


def test_a_gated_weight_says_how_to_apply(hub, vae):
    hub.fault = "gated"
    gated = stand_in("sd-vae-ft-ema", access=named("roentgen").access)
    with pytest.raises(WeightsFileError, match="physionet.org.*ask for access at"):
        fetch(gated)


def test_a_repository_that_lacks_a_file_is_refused(hub):
    with pytest.raises(WeightsFileError, match="spiece.model did not arrive"):
        fetch(stand_in("sd-vae-ft-ema", files=(File("config.json"), File("spiece.model"))))


def test_without_a_connection_the_way_by_a_folder_is_said(vae, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsFileError, match="cannot reach.*fetch sd-vae-ft-ema --folder FOLDER.*add sd-vae-ft-ema"):
        fetch(vae)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsFileError, match="cannot reach"):
        fetch(vae)
    with pytest.raises(WeightsFileError, match="cannot reach"):
        fetch(stand_in("xrv-all", source="http://127.0.0.1:9/weights.pt"))


def test_a_file_at_an_address(hub, places, published):
    path = fetch(plain(hub))
    assert path == places / "home/.torchxrayvision/models_data/weights.pt"
    assert path.read_bytes() == (published / "weights.pt").read_bytes() and list(places.glob("records/xrv-all.json"))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("damaged", "has the sha256"), ("short", "bytes, not"), ("cut", "cut off at 1,500 of")],
)
def test_a_file_at_an_address_arrives_whole_or_not_at_all(hub, places, published, fault, reason):
    (whole,) = weights_store.digests({"weights.pt": published / "weights.pt"})
    hub.fault, hub.left = fault, 1500
    with pytest.raises(WeightsFileError, match=reason):
        fetch(plain(hub, size=whole.size, sha256=whole.sha256))
    assert not [path for path in places.rglob("*") if path.is_file()]


def test_a_page_in_place_of_weights_is_refused(hub, places):
    with pytest.raises(WeightsFileError, match="no file of torch"):
        fetch(plain(hub, "page.pt"))
    assert not [path for path in places.rglob("*") if path.is_file()]


def test_a_disk_that_fills_up_leaves_nothing(hub, places, monkeypatch):
    def fill(answer, out, _):
        out.write(answer.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fill)
    with pytest.raises(WeightsFileError, match="No space left on device.*make room"):
        fetch(plain(hub))
    assert not [path for path in places.rglob("*") if path.is_file()]


def test_an_interrupt_leaves_nothing(hub, places, monkeypatch):
    def interrupt(answer, out, _):
        out.write(answer.read(100))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(plain(hub))
    assert not [path for path in places.rglob("*") if path.is_file()]


def test_an_address_where_nothing_is(hub, places):
    with pytest.raises(WeightsFileError, match="404"):
        fetch(stand_in("xrv-all", source=f"{hub.url}/plain/nothing.pt"))


def test_too_little_room_is_said_before_anything_is_fetched(hub):
    with pytest.raises(WeightsFileError, match="GB are needed"):
        fetch(stand_in("sd-vae-ft-ema", size=10**18))
    assert not hub.asked


def test_what_cannot_be_fetched_says_what_to_do():
    for name, reason in (("chexgen-512", "apply to the authors.*weights add chexgen-512"), ("minilm", "make env")):
        with pytest.raises(WeightsFileError, match=reason):
            fetch(named(name))
    assert remedy(named("xrv-all")) == "chexgen weights fetch xrv-all"
    assert "Then: chexgen weights fetch roentgen" in remedy(named("roentgen"))
