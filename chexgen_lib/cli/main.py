"""The command line.

    chexgen convert epoch_300_step_1000.pth pipeline
    chexgen sample prompts.csv --weights pipeline --out samples
    chexgen share samples samples --out folder --push OWNER/NAME
    chexgen edit films.csv --out edited
    chexgen train cohort/pretraining_train.safetensors --settings params.yaml:pretraining --out pretraining
    chexgen data list --root DATA
    chexgen weights check --profile gpu
    chexgen readers make --cohort runs/laptop/cohort --arm ours=runs/laptop/synthesis --readers A B --out study
    chexgen audit pool --training runs/laptop/cohort --held-out runs/laptop/cohort --out audit
    chexgen judge shipped other=FOLDER --out judged

On several GPUs, `accelerate launch -m chexgen_lib.cli.main sample ...` (or `train`) shares the work among processes.
"""

import argparse
import functools
import sys
import warnings
from pathlib import Path
from types import ModuleType

from chexgen_lib.cli import judge_options

PROMPTS = """.txt, a prompt a line; or .csv, .json, .jsonl with the columns name and impression, and maybe sex, age,
race, view, mask ("lungs=lungs.png; heart=heart.png") and boxes ("Lung Lesion 0.6 0.3 0.1 0.1": class, x, y, w, h);
for weights with a metadata encoder also source and findings (1 or 0), with or without an impression"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0; 1 if rows failed; 2 with one line of explanation on stderr."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"chexgen: {message}", file=sys.stderr)
        try:
            return options.command(options)
        except (ValueError, OSError) as error:  # the library's own errors are ValueErrors
            print(f"chexgen: {error}", file=sys.stderr)
            return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chexgen", description="Chest radiographs from text; and the data behind it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sample = commands.add_parser("sample", help="sample radiographs for a file of prompts")
    sample.add_argument("prompts", type=Path, help=PROMPTS)
    weights = "shipped (the default), a pipeline folder, or a released .pth"
    sample.add_argument("--weights", type=Path, default=Path("shipped"), help=weights)
    sample.add_argument("--out", type=Path, required=True, help="folder of the images and manifest.csv")
    sample.add_argument("--format", choices=("png", "dicom"), default="png", help="of the images (default: png)")
    sample.add_argument("--images-per-prompt", type=int, default=1, metavar="N", help="seeds (default: 1)")
    sample.add_argument("--steps", type=int, metavar="N", help="of the sampler (default: 100, of a flow 20)")
    sample.add_argument(
        "--guidance", type=float, default=4.0, metavar="W", help="of the prompt (default: 4.0; 1: none)"
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
    sample.add_argument("--control-scale", type=float, default=1.0, help="weight of masks and boxes")
    sample.add_argument("--int8", action="store_true", help="weights of 8 bits, for a CPU: two to three times as fast")
    sample.add_argument(
        "--compile", action="store_true", help="compile the blocks first: with --int8 and hundreds of images it pays"
    )
    sample.add_argument("--batch-size", type=int, default=8, metavar="N", help="images at a time (default: 8)")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of all images (default: 0)")
    sample.set_defaults(command=_sample)
    convert = commands.add_parser("convert", help="turn a released checkpoint into a pipeline folder")
    convert.add_argument("checkpoint", type=Path, help="a released .pth")
    convert.add_argument("folder", type=Path, help="a new folder for the pipeline")
    convert.set_defaults(command=_convert)
    for command in (sample, convert):  # a pipeline folder holds these, a released .pth does not
        command.add_argument("--autoencoder", help="for a .pth (default: stabilityai/sd-vae-ft-ema)")
        command.add_argument("--text-encoder", help="for a .pth (default: DeepFloyd/t5-v1_1-xxl)")
        command.add_argument("--compat", choices=("paper", "released"), help="for a .pth (default: paper)")
    _add_share(commands)
    _add_edit(commands)
    _add_train(commands)
    _add_data(commands)
    _add_weights(commands)
    _add_readers(commands)
    _add_audit(commands)
    judge_options.add(commands)
    return parser


def _add_share(commands: argparse._SubParsersAction) -> None:
    share = commands.add_parser("share", help="a model or samples as a hub expects them: files and a card")
    kinds = share.add_subparsers(required=True, metavar="KIND")
    model = kinds.add_parser("model", help="a pipeline, its recipe and a model card")
    samples = kinds.add_parser("samples", help="PNGs with their recipes, metadata.csv and a data card")
    model.add_argument("source", type=Path, metavar="WEIGHTS", help="shipped, or a pipeline folder")
    samples.add_argument("source", type=Path, metavar="FOLDER", help="what `chexgen sample` wrote, or a pool of a run")
    for name, kind in (("model", model), ("samples", samples)):
        kind.add_argument("--out", type=Path, required=True, help="a new folder")
        kind.add_argument("--license", metavar="ID", help="as hubs spell it, such as cc-by-4.0 (default: unknown)")
        kind.add_argument("--push", metavar="OWNER/NAME", help="upload it to this repository, made if there is none")
        kind.add_argument("--public", action="store_true", help="a new repository is for all to see (default: private)")
        kind.set_defaults(command=functools.partial(_share, name))


def _add_edit(commands: argparse._SubParsersAction) -> None:
    edit = commands.add_parser("edit", help="edit given films: older, of the other sex, with or without a finding")
    films = "columns pair (a name), image (a file), change (JSON), and what is known of the film: age, sex, view, ..."
    edit.add_argument("films", type=Path, help=f"a table with the {films}")
    edit.add_argument("--out", type=Path, required=True, help="folder of the edited films and labels.csv")
    edit.add_argument(
        "--weights", type=Path, default=Path("shipped"), help="shipped (the default), or a pipeline folder"
    )
    edit.add_argument("--steps", type=int, metavar="N", help="each way (default: that of ChexGenPipeline.edit)")
    edit.add_argument("--strength", type=float, metavar="S", help="share of noise that is reached, up to 1")
    edit.add_argument("--guidance", type=float, metavar="W", help="of what the change says; 1: none")
    edit.set_defaults(command=_edit)
    benchmark = commands.add_parser("counterfactuals", help="a benchmark of edits, whose truth is known")
    actions = benchmark.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", help="films to edit, and labels.csv, which says what each shows and is to become")
    make.add_argument("folder", type=Path, help="a new folder")
    score = actions.add_parser("score", help="edited films against their truth, beside the films themselves")
    score.add_argument("folder", type=Path, help="with labels.csv: columns pair and image")
    score.add_argument(
        "--probe-pairs", type=int, default=400, metavar="N", help="that probes learn from (default: 400)"
    )
    score.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    for name, action in (("make", make), ("score", score)):
        action.add_argument("--pairs", type=int, default=1000, metavar="N", help="the first N (default: 1000)")
        action.add_argument("--size", type=int, default=128, metavar="PX", help="of a side (default: 128)")
        action.add_argument("--workers", type=int, default=2, metavar="N", help="processes that render (default: 2)")
        action.set_defaults(command=functools.partial(_counterfactuals, name))


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a transformer on latents and text states of stage 02_cohort")
    train.add_argument("cache", type=Path, help="latent cache, such as cohort/pretraining_train.safetensors")
    train.add_argument(
        "--settings",
        required=True,
        metavar="FILE[:SECTION]",
        help="YAML or JSON of the trainer's settings, or a section of one: params.yaml:pretraining",
    )
    train.add_argument("--out", type=Path, required=True, help="folder of the log, the checkpoints and transformer/")
    train.add_argument("--size", metavar="NAME", help="of a new model, from ci to rf-1b; default: the settings' model")
    train.add_argument("--weights", type=Path, metavar="FOLDER", help="a transformer to go on from, in place of a new")
    train.add_argument(
        "--metadata-sources", type=lambda text: text.split(","), metavar="A,B", help="for a cache with metadata"
    )
    train.add_argument("--gradient-checkpointing", action="store_true", help="less memory for more computing")
    train.set_defaults(command=_train)


def _add_data(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="the public datasets: what there is, and what of it is on this disk")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="every dataset, and its state below a data root")
    listed.add_argument("--root", type=Path, help="folder that holds a folder for each dataset, named as its source")
    listed.set_defaults(command=_data_list)
    check = actions.add_parser("check", help="one dataset: its files, its counts beside the paper's, the first remedy")
    check.add_argument("--source", required=True, metavar="NAME", help="of `chexgen data list`, first column")
    check.add_argument("--root", type=Path, help="as for list; without it the table that is shipped, if there is one")
    check.set_defaults(command=_data_check)
    build = actions.add_parser("build", help="a described, checked and split corpus of any size, in parquet parts")
    build.add_argument(
        "sources", nargs="+", metavar="NAME[=FOLDER]", help="without a folder: the table that is shipped"
    )
    build.add_argument("--out", type=Path, required=True, help="folder of the parts and the manifest")
    build.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="share I of N of the patients, from 0; run all N",
    )
    build.set_defaults(command=_data_build)


def _add_weights(commands: argparse._SubParsersAction) -> None:
    weights = commands.add_parser("weights", help="weights of others that profiles read: what is there, and the rest")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="every weight: size, licence, sha256, who reads it, and its state here")
    fetched = actions.add_parser("fetch", help="download weights, compare their digests, and record them")
    fetched.add_argument("names", nargs="*", metavar="NAME", help="of `chexgen weights list`, first column")
    fetched.add_argument("--folder", type=Path, help="to carry to another machine; default: where the loaders look")
    added = actions.add_parser("add", help="take weights from a folder or file that you have")
    added.add_argument("name", metavar="NAME", help="of `chexgen weights list`, first column")
    added.add_argument(
        "path", type=Path, metavar="PATH", help="folder in the hub's layout, or the file; linked or copied"
    )
    check = actions.add_parser("check", help="exit with 1, and say what to do, if a weight is missing")
    check.add_argument(
        "--stages", nargs="*", default=[], metavar="NAME", help="these and what they need (default: all)"
    )
    check.add_argument("--hashes", action="store_true", help="read every byte and compare the digests, too")
    check.add_argument("--trial", action="store_true", help="let each generator among them make an image in one step")
    for action, default in ((listed, "the whole catalogue"), (fetched, "the names"), (check, "that of params.yaml")):
        action.add_argument("--profile", metavar="NAME", help=f"what this profile reads (default: {default})")
    for action, name in ((listed, "list_weights"), (fetched, "fetch"), (added, "add"), (check, "check")):
        action.set_defaults(command=functools.partial(_run_weights, name))


def _add_readers(commands: argparse._SubParsersAction) -> None:
    readers = commands.add_parser("readers", help="a blinded study of samples with radiologists, and its results")
    actions = readers.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", help="a self-contained HTML form for each reader, and the organiser's key")
    make.add_argument("--cohort", type=Path, required=True, help="folder of the real images: cohort of a run")
    make.add_argument(
        "--arm",
        action="append",
        required=True,
        metavar="NAME=FOLDER",
        help="samples of the cohort's records: synthesis or a pool of a run, or images with labels.csv; repeatable",
    )
    make.add_argument("--out", type=Path, required=True, help="a new folder")
    make.add_argument("--readers", nargs="+", default=["reader-1", "reader-2"], metavar="NAME", help="one file each")
    make.add_argument(
        "--tasks",
        nargs="+",
        default=["realism", "agreement", "assisted"],
        metavar="TASK",
        help="of realism, pairs, agreement and assisted (default: all but pairs)",
    )
    make.add_argument("--detect", type=float, default=0.3, metavar="SD", help="effect in sd that must be detected")
    make.add_argument("--power", type=float, default=0.8, help="probability of detecting it (default: 0.8)")
    make.add_argument("--cases", type=int, metavar="N", help="cases a task, in place of --detect")
    make.add_argument("--size", type=int, metavar="PX", help="of all images; default: the largest that all arms have")
    make.add_argument("--title", default="Reader study", help="what readers see on top")
    make.add_argument("--seed", type=int, metavar="N", help="default: a secret one, kept in the key")
    make.set_defaults(command=lambda options: _readers().make(options))
    score = actions.add_parser("score", help="check and unblind the files in FOLDER/answers; means, kappa, d'")
    score.add_argument("folder", type=Path, help="what `make` wrote")
    score.add_argument("--baseline", default="real", metavar="ARM", help="agreement is compared with (default: real)")
    score.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    score.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    score.set_defaults(command=lambda options: _readers().score(options))


def _add_audit(commands: argparse._SubParsersAction) -> None:
    audit = commands.add_parser("audit", help="a pool's privacy: does it copy or give away who was trained on?")
    folders = "a cohort or pool of a run, or images with or without labels.csv (docs/privacy.md)"
    audit.add_argument("pool", type=Path, help=f"folder of the synthetic images: {folders}")
    audit.add_argument("--training", type=Path, required=True, metavar="FOLDER", help="all images trained on")
    audit.add_argument(
        "--held-out", type=Path, required=True, metavar="FOLDER", help="real images of others, 99 or more"
    )
    audit.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the report")
    audit.add_argument(
        "--weights", metavar="NAME", help="shipped, or a pipeline folder: the generator, to try its error too"
    )
    audit.add_argument("--size", type=int, metavar="PX", help="of all images; default: the smallest's, at most 128")
    audit.add_argument(
        "--false-alarms", type=_rate, default=0.01, metavar="SHARE", help="of unseen images (default: 0.01)"
    )
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="of resamples and planted copies (default: 0)")
    audit.set_defaults(command=_audit)


def _rate(text: str) -> float:
    """ "0.01" -> 0.01."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 0.5")
    return share


def _weights(text: str) -> dict[str, float]:
    """ "age=10, sex=6" -> weights by name."""
    try:
        return {name.strip(): float(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as 'age=10,sex=6'") from error


def _interval(text: str) -> tuple[float, ...]:
    """ "0,0.75" -> its numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as '0,0.75'") from error
    return low, high


# Imported when called, so that `chexgen data` does not wait for torch.
def _sample(options: argparse.Namespace) -> int:
    from chexgen_lib.cli import sample as files

    return files.sample(options)


def _convert(options: argparse.Namespace) -> int:
    from chexgen_lib.cli import sample as files

    return files.convert(options)


def _edit(options: argparse.Namespace) -> int:
    from chexgen_lib.cli import edit

    return edit.edit(options)


def _counterfactuals(name: str, options: argparse.Namespace) -> int:
    from chexgen_lib.cli import counterfactuals

    return getattr(counterfactuals, name)(options)


def _train(options: argparse.Namespace) -> int:
    from chexgen_lib.cli import train as command

    return command.train(options)


def _share(kind: str, options: argparse.Namespace) -> int:
    from chexgen_lib.cli import share

    return getattr(share, kind)(options)


def _audit(options: argparse.Namespace) -> int:
    from chexgen_lib.cli import audit as command

    return command.run(options)


def _readers() -> ModuleType:
    from chexgen_lib.cli import readers

    return readers


def _data_list(options: argparse.Namespace) -> int:
    from chexgen_lib.sources import registry

    print(registry.text(registry.overview(options.root)))
    print("paper: cases in its ED Tables 1 and 2")
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from chexgen_lib.sources import registry

    report, ready = registry.check(options.source, options.root)
    print(report)
    return 0 if ready else 1


def _data_build(options: argparse.Namespace) -> int:
    from chexgen_lib.descriptions import corpus
    from chexgen_lib.sources import registry

    share, slash, shares = options.shard.partition("/")
    if not (slash and share.isdigit() and shares.isdigit()):
        raise ValueError(f"--shard {options.shard!r}: give I/N, for example 0/4")
    named = [text.partition("=") for text in options.sources]
    for name, _, folder in named:  # fail before the long work begins
        if not folder and not registry.reader(name).DATASHEET.shipped:
            raise ValueError(f"{name}: its table is not shipped; give its folder, {name}=FOLDER (chexgen data list)")
        if folder and not Path(folder).exists():
            raise ValueError(f"{folder}: no such folder; give that of {registry.reader(name).DATASHEET.title}")
    tables = (registry.load(name, folder or None) for name, _, folder in named)
    manifest = corpus.build(tables, options.out, (int(share), int(shares)))
    files = f"{len(manifest['parts'])} file{'s' * (len(manifest['parts']) != 1)}"
    print(f"{manifest['rows']:,} records in {files}, {manifest['rejects']['rows']:,} rejects")
    return 0


def _run_weights(name: str, options: argparse.Namespace) -> int:
    from chexgen_lib.cli import weights
    from chexgen_lib.workflow.notebooks import NotebookError

    try:
        return getattr(weights, name)(options)
    except NotebookError as error:
        raise ValueError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
