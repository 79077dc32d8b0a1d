"""The options of `chexgen sample`, `convert`, `edit` and `share`."""

import argparse
from pathlib import Path

from chexgen_lib.cli.options.lazily import called
from chexgen_lib.cli.options.numbers import above_zero, at_least, finite, number

PROMPTS = """.txt, a prompt a line; or .csv, .tsv, .json, .jsonl with the columns name and impression, and maybe sex,
age, view, mask ("lungs=lungs.png; heart=heart.png") and boxes ("Lung Lesion 0.6 0.3 0.1 0.1": class, x, y, w, h); for
weights with a metadata encoder also source and findings (1 or 0), with or without an impression, for others race"""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    _add_sample(commands)
    _add_edit(commands)
    _add_share(commands)


def _add_sample(commands: argparse._SubParsersAction) -> None:
    sample = commands.add_parser("sample", help="sample radiographs for a file of prompts")
    sample.add_argument("prompts", type=Path, help=PROMPTS)
    shipped = "shipped (the default; with masks or boxes shipped-adapter), shipped-distilled (four steps)"
    weights = f"{shipped}, a folder of a pipeline or transformer, a hub id, or a released .pth"
    sample.add_argument("--weights", type=Path, default=Path("shipped"), help=weights)
    sample.add_argument("--out", type=Path, required=True, help="folder of the images and manifest.csv")
    sample.add_argument("--format", choices=("png", "dicom"), default="png", help="of the images (default: png)")
    sample.add_argument("--images-per-prompt", type=at_least(1), default=1, metavar="N", help="seeds (default: 1)")
    sample.add_argument("--steps", type=at_least(1), metavar="N", help="of the sampler (default: 100, of a flow 20)")
    sample.add_argument(
        "--guidance", type=finite, metavar="W", help="of the prompt (default: 4.0, of a flow 2.0; 1: none)"
    )
    sample.add_argument(
        "--guidance-interval",
        type=_interval,
        metavar="LOW,HIGH",
        help="guide only at these shares of noise (default: 0,1)",
    )
    sample.add_argument(
        "--metadata-guidance", type=_weights, metavar="AGE=W,...", help="weights of attributes of a metadata encoder"
    )
    sample.add_argument(
        "--sampler", help="dpm-solver++, ddim, ancestral, flow-euler or flow-heun; default: the pipeline's own"
    )
    sample.add_argument("--control-scale", type=finite, default=1.0, help="weight of masks and boxes (default: 1)")
    sample.add_argument("--int8", action="store_true", help="weights of 8 bits, for a CPU: two to three times as fast")
    sample.add_argument(
        "--compile", action="store_true", help="compile the blocks first: with --int8 and hundreds of images it pays"
    )
    sample.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="images at a time (default: 8)")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of all images (default: 0)")
    sample.set_defaults(command=called("sample", "sample"))
    convert = commands.add_parser("convert", help="turn a released checkpoint into a pipeline folder")
    convert.add_argument("checkpoint", type=Path, help="a released .pth")
    convert.add_argument("folder", type=Path, help="a new folder for the pipeline")
    convert.set_defaults(command=called("sample", "convert"))
    for command in (sample, convert):  # a pipeline folder holds these, a transformer alone does not
        command.add_argument("--autoencoder", help="for a .pth (stabilityai/sd-vae-ft-ema) or a transformer (shipped)")
        command.add_argument("--text-encoder", help="for a .pth (DeepFloyd/t5-v1_1-xxl) or a transformer (minilm)")
        command.add_argument("--compat", choices=("paper", "released"), help="for a .pth (default: paper)")


def _add_edit(commands: argparse._SubParsersAction) -> None:
    edit = commands.add_parser("edit", help="edit given films: older, of the other sex, with or without a finding")
    films = "columns pair (a name), image (a file), change (JSON), and what is known of the film: age, sex, view, ..."
    strength = number("above 0 and at most 1", lambda share: 0 < share <= 1)
    edit.add_argument("films", type=Path, help=f"a table with the {films}")
    edit.add_argument("--out", type=Path, required=True, help="folder of the edited films and labels.csv")
    edit.add_argument(
        "--weights", type=Path, default=Path("shipped"), help="shipped (the default), or a pipeline folder"
    )
    edit.add_argument("--steps", type=at_least(1), metavar="N", help="each way (default: that of ChexGenPipeline.edit)")
    edit.add_argument("--strength", type=strength, metavar="S", help="share of noise that is reached, up to 1")
    edit.add_argument("--guidance", type=above_zero, metavar="W", help="of what the change says; 1: none")
    edit.set_defaults(command=called("edit", "edit"))


def _add_share(commands: argparse._SubParsersAction) -> None:
    share = commands.add_parser("share", help="a model or samples as a hub expects them: files and a card")
    kinds = share.add_subparsers(required=True, metavar="KIND")
    model = kinds.add_parser("model", help="a pipeline, its recipe and a model card")
    samples = kinds.add_parser("samples", help="images with their recipes, metadata.csv and a data card")
    model.add_argument(
        "source", type=Path, metavar="WEIGHTS", help="shipped, shipped-distilled, shipped-adapter or a pipeline folder"
    )
    samples.add_argument(
        "source",
        type=Path,
        metavar="FOLDER",
        help="what `chexgen sample` wrote, a pool of a run, or images of any generator with labels.csv",
    )
    samples.add_argument("--format", choices=("png", "dicom"), default="png", help="of the images (default: png)")
    for name, kind in (("model", model), ("samples", samples)):
        kind.add_argument("--out", type=Path, required=True, help="a new folder")
        kind.add_argument("--license", metavar="ID", help="as hubs spell it, such as cc-by-4.0 (default: unknown)")
        kind.add_argument("--push", metavar="OWNER/NAME", help="upload it to this repository, made if there is none")
        kind.add_argument("--public", action="store_true", help="a new repository is for all to see (default: private)")
        kind.set_defaults(command=called("share", name))


def _weights(text: str) -> dict[str, float]:
    """ "age=10, sex=6" -> weights by name."""
    try:
        return {name.strip(): finite(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as 'age=10,sex=6'") from error


def _interval(text: str) -> tuple[float, ...]:
    """ "0,0.75" -> its numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as '0,0.75'") from error
    return low, high
