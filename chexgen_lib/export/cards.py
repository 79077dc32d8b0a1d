"""What stands in the README of a shared model or of shared samples: facts that the code knows, and limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

import chexgen_lib
from chexgen_lib.diffusion.schedulers import default_steps
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import goes_on_from
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sources import registry
from chexgen_lib.storage import digest

Model = ChexGenTransformer | ControlledTransformer | BaselineUNet
TAGS = ["medical", "chest-xray", "synthetic", "chexgen"]
WARNING = "**Synthetic.** No image shows a patient. Not for clinical use, and no evidence about patients."
UNKNOWN = "Not recorded: whoever shares this should say here what it was trained on, and under which terms."


def model_card(
    pipeline: ChexGenPipeline, folder: Path, recipe: Mapping[str, Any] | None, licence: str | None
) -> ModelCard:
    """The card of a pipeline whose files are in `folder`; arguments as of `hub.write_model`."""
    about = ModelCardData(
        license=licence or "unknown",
        library_name="diffusers",
        pipeline_tag="text-to-image" if pipeline.text_encoder is not None else "unconditional-image-generation",
        tags=[*TAGS, pipeline.transformer.objective],
    )
    return ModelCard(
        f"---\n{about.to_yaml()}\n---\n\n# Chest radiographs of {pipeline.image_size} px\n\n{WARNING}\n\n"
        f"## Use\n\nWith chexgen_lib {chexgen_lib.__version__}:\n\n"
        f"```python\nfrom {type(pipeline).__module__} import {type(pipeline).__name__}\n\n"
        f'pipeline = {type(pipeline).__name__}.from_pretrained("FOLDER, or OWNER/NAME")\n'
        'pipeline("Cardiomegaly. No effusion.").images[0].save("heart.png")\n```\n\n'
        f"## Architecture\n\n{_table(_architecture(pipeline, folder))}\n\n"
        f"## Training\n\n{_training(recipe)}\n\n"
        "## Limits\n\nNothing here says how good the samples are: measure them on prompts that the model has not seen "
        "(`07_quality`), and whether they copy training images, before you use or publish any. Whatever the training "
        "images lack or over-represent, the samples do, too. Terms of the training data may reach to a model trained "
        "on them.\n"
    )


def data_card(
    counts: pl.DataFrame, recipe: Mapping[str, Any], shapes: Sequence[tuple[int, int]], licence: str | None
) -> DatasetCard:
    """The card of samples.

    Args:
        counts: as `hub.write_samples` returns.
        recipe: of the first image, for the columns that all have.
        shapes: heights and widths in pixels, from the smallest to the largest.
    """
    images = counts["images"].sum()
    about = DatasetCardData(
        license=licence or "unknown",
        task_categories=["image-classification", "text-to-image"],
        tags=TAGS,
        pretty_name="Synthetic chest radiographs",
        size_categories=_size(images),
    )
    settings = ("generator", "weights_sha256", "sampler", "steps", "guidance", "chexgen_lib")
    sizes = " to ".join(f"{width} x {height}" for height, width in dict.fromkeys((shapes[0], shapes[-1])))
    facts = {"images": f"{images:,}", "size": f"{sizes} px, 8-bit grey"}
    facts |= {name: str(recipe[name]) for name in settings if name in recipe}
    return DatasetCard(
        f"---\n{about.to_yaml()}\n---\n\n# Synthetic chest radiographs\n\n{WARNING}\n\n{_table(facts)}\n\n"
        "`metadata.csv` has a row for each image: `file_name`, the prompt and what else was requested, the seed. Each "
        "image holds the same as JSON: a PNG in its text chunk `chexgen`, a DICOM file in (4347,xx01). Prompts say "
        "what was requested, not what an image shows: check samples against probes trained on real images before you "
        "take prompts for labels.\n\n"
        f"## Whose records the prompts are from\n\n{_sources(counts)}\n\n"
        "## Limits\n\nWhether an image copies one of a patient whom the generator was trained on has not been checked "
        "here.\n"
    )


def _architecture(pipeline: ChexGenPipeline, folder: Path) -> dict[str, str]:
    model, parts = pipeline.transformer, ("transformer", "vae", "text_encoder")
    size = sum(parameter.numel() for parameter in model.parameters())
    files = sorted(path for part in parts for path in (folder / part).glob("*.safetensors"))
    return {
        "transformer": f"{size / 1e6:.1f} M parameters, {_shape(model)}",
        "objective": model.objective,
        "conditions": _conditions(pipeline),
        "sampler": f"{type(pipeline.scheduler).__name__}, {default_steps(model)} steps"
        + (" unless told otherwise" if pipeline.distilled_steps is None else ", without guidance"),
        **{f"sha256 of {path.relative_to(folder).as_posix()}": f"`{digest(path)}`" for path in files},
    }


def _shape(model: Model) -> str:
    if isinstance(model, ControlledTransformer):
        return f"{_shape(model.base_model)} under a control adapter of {len(model.controlnet)} copied blocks"
    if isinstance(model, BaselineUNet):
        return f"a U-Net of widths {', '.join(map(str, model.config.block_out_channels))}"
    return f"{model.config.depth} blocks of width {model.config.hidden_size}"


def _conditions(pipeline: ChexGenPipeline) -> str:
    model = pipeline.transformer
    text = [f"English text of up to {len(model.null_caption)} tokens"] if pipeline.text_encoder is not None else []
    metadata = ["sex, age, view, source and findings"] if model.metadata_sources is not None else []
    drawn = ["masks and boxes"] if isinstance(model, ControlledTransformer) else []
    return "; ".join([*text, *metadata, *drawn])


def _training(recipe: Mapping[str, Any] | None) -> str:
    if recipe is None:
        return UNKNOWN
    known = ("images", "patients", "resolution", "presentations", "hours", "machine", "commit")
    facts = {name: str(recipe[name]) for name in known if name in recipe} | goes_on_from(recipe)
    sources = {f"images of {_title(s)}": f"{n:,} ({_licence(s)})" for s, n in recipe.get("sources", {}).items()}
    return f"{_table(facts | sources)}\n\n`recipe.json` has every setting."


def _sources(counts: pl.DataFrame) -> str:
    """Source, images and terms, and where texts were left out."""
    rows = {}
    for source, texts, images in counts.select("source", "texts", "images").iter_rows():
        name = "prompts written for this set" if source is None else f"{_title(source)} ({_licence(source)})"
        rows[name] = f"{images:,}" + ("" if texts else "; prompts and record ids are left out, because of these terms")
    return _table(rows)


def _title(source: str) -> str:
    return registry.reader(source).DATASHEET.title if source in registry.ALL else source


def _licence(source: str) -> str:
    """Terms of a source; those of one that this library has no datasheet of whoever shares must know."""
    return registry.reader(source).DATASHEET.licence if source in registry.ALL else "terms not recorded here"


def _size(images: int) -> str:
    """The hub's words for a number of images."""
    limits = {"n<1K": 1_000, "1K<n<10K": 10_000, "10K<n<100K": 100_000, "100K<n<1M": 1_000_000}
    return next((name for name, limit in limits.items() if images < limit), "1M<n<10M")


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
