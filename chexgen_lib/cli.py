"""The command line: `chexgen sample` prompts from a file, `chexgen convert` a released checkpoint.

    chexgen sample prompts.csv --weights runs/laptop/pipeline --out samples
    chexgen convert epoch_300_step_1000.pth pipeline

Several GPUs: `accelerate launch -m chexgen_lib.cli sample ...` shares the batches among its processes.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import polars as pl
import torch
from accelerate import PartialState
from PIL import Image, PngImagePlugin
from tqdm import tqdm

import chexgen_lib
from chexgen_lib.atomic import replacing
from chexgen_lib.models.released import CheckpointError
from chexgen_lib.models.text import TextError, count_tokens
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sampling.prompts import PromptError, read_prompts
from chexgen_lib.sampling.synthesis import image_seed


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 with one line of explanation on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (PromptError, CheckpointError, TextError, ValueError, OSError) as error:
        print(f"chexgen: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chexgen", description="Chest radiographs from text.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sample = commands.add_parser("sample", help="sample radiographs for a file of prompts")
    sample.add_argument("prompts", type=Path, help=".csv, .json, .jsonl (columns name, impression, ...) or .txt")
    sample.add_argument("--weights", type=Path, required=True, help="a pipeline folder, or a released .pth")
    sample.add_argument("--out", type=Path, required=True, help="folder of the images and manifest.csv")
    sample.add_argument("--images-per-prompt", type=int, default=1, metavar="N")
    sample.add_argument("--steps", type=int, default=100)
    sample.add_argument("--guidance", type=float, default=4.0)
    sample.add_argument("--batch-size", type=int, default=8)
    sample.add_argument("--seed", type=int, default=0)
    sample.set_defaults(command=_sample)
    convert = commands.add_parser("convert", help="turn a released checkpoint into a pipeline folder")
    convert.add_argument("checkpoint", type=Path)
    convert.add_argument("folder", type=Path)
    convert.set_defaults(command=_convert)
    for command in (sample, convert):  # what a pipeline folder holds and a released .pth does not
        command.add_argument("--autoencoder", help="for a .pth (default: stabilityai/sd-vae-ft-ema)")
        command.add_argument("--text-encoder", help="for a .pth (default: DeepFloyd/t5-v1_1-xxl)")
        command.add_argument("--compat", choices=("paper", "released"), help="for a .pth (default: paper)")
    return parser


def _load(weights: Path, options: argparse.Namespace) -> ChexGenPipeline:
    names = ("autoencoder", "text_encoder", "compat")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if not weights.is_dir():
        return ChexGenPipeline.from_released(weights, **given)
    if given:
        raise ValueError(
            f"{weights} is a whole pipeline: --{next(iter(given)).replace('_', '-')} is for a released .pth"
        )
    return ChexGenPipeline.from_pretrained(weights)


def _convert(options: argparse.Namespace) -> None:
    if options.folder.exists():
        raise ValueError(f"{options.folder} exists: name a new folder")
    with replacing(options.folder) as folder:
        _load(options.checkpoint, options).save_pretrained(folder)
    print(f"{options.folder}: a pipeline for ChexGenPipeline.from_pretrained or chexgen sample --weights")


def _sample(options: argparse.Namespace) -> None:
    for name in ("images_per_prompt", "steps", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    prompts, state = read_prompts(options.prompts), PartialState()
    pipeline = _load(options.weights, options).to(state.device)
    pipeline.set_progress_bar_config(disable=True)
    _check_lengths(prompts, pipeline)
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = _jobs(prompts, options, digest(options.weights), type(pipeline.scheduler).__name__)
    # Batches are fixed by the file, not by what is left to do: an interrupted run ends with the same bytes.
    batches = [jobs[i : i + options.batch_size] for i in range(0, len(jobs), options.batch_size)]
    mine = batches[state.process_index :: state.num_processes]
    with tqdm(total=sum(map(len, mine)), desc="samples", disable=not state.is_local_main_process) as progress:
        for batch in mine:
            if not all(finished(options.out, job) for job in batch):
                images = pipeline(
                    [job["prompt"] for job in batch],
                    num_inference_steps=options.steps,
                    guidance_scale=options.guidance,
                    generator=[torch.Generator().manual_seed(job["seed"]) for job in batch],
                ).images
                for job, image in zip(batch, images, strict=True):
                    _write(options.out, job, image)
            progress.update(len(batch))
    state.wait_for_everyone()
    if state.is_main_process:
        with replacing(options.out / "manifest.csv") as path:
            pl.DataFrame(jobs).write_csv(path)


def _check_lengths(prompts: pl.DataFrame, pipeline: ChexGenPipeline) -> None:
    limit = len(pipeline.transformer.null_caption)
    counts = count_tokens(pipeline.tokenizer, [pipeline.caption(text) for text in prompts["prompt"]])
    long = [(row, n) for row, n in zip(prompts["row"], counts, strict=True) if n > limit]
    if long:
        listed = ", ".join(f"row {row} ({n})" for row, n in long[:10])
        raise PromptError(f"{len(long)} prompts have more than {limit} tokens, shorten them: {listed}")


def _jobs(prompts: pl.DataFrame, options: argparse.Namespace, weights: str, sampler: str) -> list[dict]:
    """One dict an image: what the manifest says of it."""
    settings = dict(
        sampler=sampler,
        steps=options.steps,
        guidance=options.guidance,
        weights_sha256=weights,
        chexgen_lib=chexgen_lib.__version__,
    )
    return [
        dict(
            file=f"{row['name']}_{k}.png",
            prompt=row["prompt"],
            seed=image_seed(row["name"], k, options.seed),
            **settings,
        )
        for row in prompts.iter_rows(named=True)
        for k in range(options.images_per_prompt)
    ]


def finished(folder: Path, job: dict) -> bool:
    """Whether the job's image is there, whole, and was made by the same settings."""
    try:
        with Image.open(folder / job["file"]) as image:
            image.load()
            return image.text.get("chexgen") == json.dumps(job, sort_keys=True)
    except (OSError, SyntaxError, AttributeError):
        return False


def _write(folder: Path, job: dict, image: Image.Image) -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("chexgen", json.dumps(job, sort_keys=True))
    with replacing(folder / job["file"]) as path:
        image.save(path, format="PNG", pnginfo=note)


def digest(weights: Path) -> str:
    """SHA-256 of a weights file; of a pipeline folder, that of its weight files' digests in path order."""
    if weights.is_file():
        with open(weights, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = sorted(weights.rglob("*.safetensors"))
    if not files:
        raise ValueError(f"{weights} holds no weights: name a pipeline folder or a released .pth")
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
