"""`chexgen audit`: whether a pool of synthetic radiographs copies or gives away who its generator was trained on."""

import argparse
from functools import partial

from chexgen_lib.cli.overwriting import check_apart
from chexgen_lib.figures import privacy as page
from chexgen_lib.figures import style
from chexgen_lib.privacy import folders
from chexgen_lib.privacy.audit import NOTHING, audit
from chexgen_lib.storage import write_csv, write_json


def run(options: argparse.Namespace) -> int:
    """Audit `options.pool`, write the report into `options.out` and print the verdict; 1 unless nothing was found."""
    named = options.pool, options.training, options.held_out
    check_apart(options.out, named)
    attacks = {}
    if options.weights is not None:  # the pipeline loads slowly
        from chexgen_lib.cli.sample import load_pipeline
        from chexgen_lib.privacy import model_error

        pipeline = load_pipeline(options.weights)
        attacks[model_error.NAME] = partial(model_error.scores, pipeline=pipeline, seed=options.seed)
    sets, excluded = folders.read_all(*named, options.size)
    if attacks:
        model_error.check_size(sets[folders.POOL], pipeline)  # before minutes of comparing
    found = audit(sets, attacks, options.false_alarms, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    tables = {"images": found.images.drop("row"), "measures": found.measures, "excluded": excluded}
    for name, table in tables.items():
        write_csv(table, options.out / f"{name}.csv")
    size, counts = sets[folders.POOL].pixels.shape[-1], {name: len(images) for name, images in sets.items()}
    settings = {"size": size, "images": counts, "false_alarms": options.false_alarms, "seed": options.seed}
    write_json({"verdict": found.verdict, "reasons": found.reasons, **settings}, options.out / "verdict.json")
    style.save(page.draw(found, len(excluded)), page.plotted(found), options.out / "audit.png")
    out = dict(excluded["set"].value_counts().iter_rows())
    for name, images in sets.items():
        left = f", {out[name]} excluded (excluded.csv)" if name in out else ""
        print(f"{name}: {len(images)} images of {size} px{left}")
    print(f"verdict: {found.verdict}", *found.reasons, sep="\n  ")
    print(f"{options.out / 'audit.png'}: one page; images.csv: every image of the pool; measures.csv: every number")
    return int(found.verdict != NOTHING)
