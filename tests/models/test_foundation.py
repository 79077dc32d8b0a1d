"""The foundation that the package ships is read as it was trained, and says what to do where it cannot be."""

import json

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from chexgen_lib.experiments.distillation import student_of
from chexgen_lib.models import foundation
from chexgen_lib.models.foundation import (
    goes_on_from,
    load_adapter,
    load_transformer,
    read_history,
    read_recipe,
    save_transformer,
)
from chexgen_lib.models.loading import WeightsError
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import digest
from tests.builders import shipped_adapter, shipped_foundation


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder as the package ships it, which takes its place, and the model that was saved in it."""
    return shipped_foundation(tmp_path / "foundation", monkeypatch)


def changed(folder, change):
    """Change the tensors of the folder's weights, and its recipe so that their sha256 is right."""
    path = folder / foundation.WEIGHTS
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    recipe = json.loads((folder / foundation.RECIPE).read_text()) | {"sha256": digest(path)}
    (folder / foundation.RECIPE).write_text(json.dumps(recipe))


def test_what_was_saved_is_read_in_float32(shipped):
    folder, model = shipped
    loaded = load_transformer("shipped")
    assert (loaded.dtype, loaded.objective, loaded.training) == (torch.float32, "rectified_flow", False)
    assert load_file(folder / foundation.WEIGHTS)["pos_embed"].dtype == torch.float16
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name].cpu(), tensor.half().float(), rtol=0, atol=0)
    assert model.dtype == torch.float32, "saving leaves the model as it was"
    assert {"images": 12, "hours": 0.1}.items() <= read_recipe().items()
    assert read_history()["step"].to_list() == [0, 6]


@pytest.mark.parametrize("name", ["foundation", "adapter", "distilled"])
def test_metrics_of_a_training_that_ships_are_of_the_weights_that_ship(name, root):
    """Recipe, metrics and loss are files of their own: the adapter's metrics were of another, longer training."""
    metrics = json.loads((root / f"runs/laptop/{name}/metrics.json").read_text())
    recipe = json.loads((root / f"chexgen_lib/models/weights/{name}/recipe.json").read_text())
    last = pl.read_csv(root / f"figures/{name}_loss.csv")["step"].max()
    assert metrics["steps"] == recipe["training"]["steps"] == last + 1


def test_a_folder_is_read_without_a_recipe(tmp_path):
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=8)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_transformer(tmp_path).pos_embed.cpu(), model.pos_embed)
    with pytest.raises(WeightsError, match="no transformer at '/nowhere/at all': give 'shipped', a folder"):
        load_transformer("/nowhere/at all")


def test_files_that_are_missing_are_named_with_the_remedy(shipped):
    folder, _ = shipped
    for name in (foundation.HISTORY, foundation.WEIGHTS, foundation.RECIPE):
        (folder / name).unlink()
        with pytest.raises(WeightsError, match=rf"{name}.*install the package again, or.*`make foundation`"):
            (read_history if name == foundation.HISTORY else load_transformer)()
    with pytest.raises(WeightsError, match="the package holds no foundation"):
        read_recipe()


def test_damaged_files_are_an_error(shipped):
    folder, _ = shipped
    path = folder / foundation.WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(WeightsError, match="is damaged or not what recipe.json describes: install"):
        load_transformer("shipped")
    path.write_bytes(whole)
    for text in ("", "[1]", "{}"):
        (folder / foundation.RECIPE).write_text(text)
        with pytest.raises(WeightsError, match="recipe.json is no recipe with the sha256 of the weights: install"):
            load_transformer("shipped")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("final_layer.linear.weight"),
        lambda tensors: tensors.update(other=torch.zeros(2)),
        lambda tensors: tensors.update({"final_layer.linear.weight": torch.zeros(2, 2)}),
    ],
    ids=["a tensor less", "a tensor more", "another shape"],
)
def test_weights_of_another_version_are_an_error(shipped, change):
    folder, _ = shipped
    changed(folder, change)
    with pytest.raises(WeightsError, match="(another version|cannot be read as ChexGen).*`make foundation`"):
        load_transformer("shipped")
    with pytest.raises(WeightsError, match="another version|cannot be read") as caught:
        load_transformer(folder)
    assert "make foundation" not in str(caught.value)


def test_the_latents_of_another_autoencoder_are_an_error(shipped):
    folder, _ = shipped
    recipe = json.loads((folder / foundation.RECIPE).read_text())
    (folder / foundation.RECIPE).write_text(json.dumps(recipe | {"latents_sha256": "0" * 64}))
    with pytest.raises(WeightsError, match="trained on the latents of another autoencoder.*`make foundation`"):
        load_transformer("shipped")


def test_an_interrupted_save_leaves_the_old_files(shipped, monkeypatch):
    folder, model = shipped
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(pl.DataFrame, "write_parquet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_transformer(folder, model, {}, pl.DataFrame())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def adapter(shipped, tmp_path, monkeypatch):
    """The folder of an adapter of the shipped foundation, which takes its place, and the model that was saved."""
    return shipped_adapter(tmp_path / "adapter", monkeypatch)


def test_an_adapter_is_read_with_the_foundation_below_it(shipped, adapter):
    folder, model = adapter
    loaded = load_adapter()
    assert (loaded.dtype, loaded.training) == (torch.float32, False)
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if name.startswith("controlnet.") else tensor
        torch.testing.assert_close(loaded.state_dict()[name].cpu(), expected, rtol=0, atol=0)
    assert not any(name.startswith("base") for name in load_file(folder / foundation.WEIGHTS)), "the adapter alone"
    assert read_history("shipped-adapter")["step"].to_list() == [0, 3]
    assert {"images": 8, "copied_blocks": 1}.items() <= read_recipe("shipped-adapter").items()


def test_an_adapter_that_cannot_be_used_is_an_error_with_its_remedy(shipped, adapter):
    folder, _ = adapter
    recipe = json.loads((folder / foundation.RECIPE).read_text())
    for other, message in (
        ({"foundation_sha256": "0" * 64}, "belongs to another foundation than the shipped one"),
        ({"copied_blocks": 2}, "is of another version"),
        ({"copied_blocks": None}, "is of another version"),
        ({"sha256": "0" * 64}, "is damaged or not what recipe.json describes"),
    ):
        (folder / foundation.RECIPE).write_text(json.dumps(recipe | other))
        with pytest.raises(WeightsError, match=f"{message}.*`make adapter`"):
            load_adapter()
    (folder / foundation.WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="does not exist: .*`make adapter`"):
        load_adapter()
    (folder / foundation.RECIPE).unlink()
    with pytest.raises(WeightsError, match="the package holds no adapter .*`make adapter`"):
        load_adapter()


def test_a_recipe_says_what_its_training_went_on_from():
    first = {"images": 32768, "presentations": 384000, "hours": 0.87, "commit": "db568bd"}
    assert goes_on_from({}) == {}
    assert goes_on_from({"start": "weights/mine"}) == {"goes on from": "weights/mine"}
    words = "a training on 32,768 images, shown 384,000 times in 0.87 hours (commit db568bd)"
    assert goes_on_from({"start": first}) == {"goes on from": words}


def test_the_adapter_in_the_package_is_whole_and_steers():
    model = load_adapter("cpu")
    latents, text = torch.randn(1, *model.latent_shape), model.null_caption[None]
    condition = torch.randn(1, *model.latent_shape)
    with torch.no_grad():
        plain, steered = (model(latents, torch.tensor(500), text, controlnet_cond=c).sample for c in (None, condition))
    assert (steered - plain).std() > 0.01


def test_the_distilled_one_is_read_beside_the_foundation(shipped, tmp_path, monkeypatch):
    _, model = shipped
    folder = tmp_path / "distilled"
    monkeypatch.setattr(foundation, "DISTILLED_FOLDER", folder)
    with pytest.raises(WeightsError, match="the package holds no distilled .*`make distilled`"):
        load_transformer("shipped-distilled")
    student = student_of(model, 3)
    torch.nn.init.normal_(student.final_layer.linear.weight)
    foundation.save_transformer(folder, student, {"images": 5}, read_history())
    loaded = load_transformer("shipped-distilled")
    assert (loaded.distilled_steps, load_transformer().distilled_steps) == (3, None)
    assert read_recipe("shipped-distilled")["images"] == 5
    own, shared = (foundation.shipped_sha256(name) for name in ("shipped-distilled", "shipped"))
    assert (
        own["autoencoder_sha256"] == shared["autoencoder_sha256"] and own["weights_sha256"] != shared["weights_sha256"]
    )
    shipped_foundation(tmp_path / "another", monkeypatch, sample_size=8)
    with pytest.raises(WeightsError, match="distilled belongs to another foundation.*`make distilled`"):
        load_transformer("shipped-distilled")
    monkeypatch.setattr(foundation, "FOLDER", tmp_path / "foundation")
    changed(folder, lambda tensors: tensors.pop("pos_embed"))
    with pytest.raises(WeightsError, match="of another version.*`make distilled`"):
        load_transformer("shipped-distilled")
