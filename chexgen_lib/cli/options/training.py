"""The options of `chexgen train` and `weights`."""

import argparse
from pathlib import Path

from chexgen_lib.cli.options.lazily import called


def add(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    _add_train(commands)
    _add_weights(commands)


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a transformer on latents and text states of stage 02_cohort")
    train.add_argument("cache", type=Path, help="latent cache, such as cohort/pretraining_train")
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
        "--continue-from",
        type=Path,
        metavar="FOLDER",
        help="resume from the newest checkpoint there, of the same training, while --out has none",
    )
    train.add_argument(
        "--metadata-sources",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="A,B",
        help="datasets that a new model's metadata encoder knows; the records around the cache are read for it",
    )
    train.add_argument("--gradient-checkpointing", action="store_true", help="less memory for more computing")
    train.set_defaults(command=called("train", "train"))


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
        action.set_defaults(command=called("weights", name))
