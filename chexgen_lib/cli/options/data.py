"""The options of `chexgen data`."""

import argparse
from pathlib import Path

from chexgen_lib.cli.options.lazily import called


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    data = commands.add_parser("data", help="the public datasets: what there is, and what of it is on this disk")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="every dataset, and its state below a data root")
    listed.add_argument("--root", type=Path, help="folder that holds a folder for each dataset, named as its source")
    listed.set_defaults(command=called("data", "list_sources"))
    check = actions.add_parser("check", help="one dataset: its files, its counts beside the paper's, the first remedy")
    check.add_argument("--source", required=True, metavar="NAME", help="of `chexgen data list`, first column")
    check.add_argument("--root", type=Path, help="as for list; without it the table that is shipped, if there is one")
    check.set_defaults(command=called("data", "check"))
    build = actions.add_parser("build", help="a described, checked and split corpus of any size, in parquet parts")
    build.add_argument(
        "sources", nargs="+", metavar="NAME[=FOLDER]", help="without a folder: the table that is shipped"
    )
    build.add_argument("--out", type=Path, required=True, help="folder of the parts and the manifest")
    build.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="share I of N of the patients, from 0; run all N (default: 0/1, all)",
    )
    build.set_defaults(command=called("data", "build"))
