"""The numbers of notebook 12 for `dvc metrics`, and the size of both papers' trainings."""

from collections.abc import Mapping

import polars as pl

from chexgen_lib.models.sizing import Run


def metrics(compared: pl.DataFrame, controlled: pl.DataFrame, off_target: pl.DataFrame, ranks: pl.DataFrame) -> dict:
    """Metrics from `comparison.compare`, `control.control_table`, the pairs off target and `rank_agreement`."""
    found: dict = {"comparison": {}, "control": {}}
    for r in compared.sort("metric", maintain_order=True).iter_rows(named=True):
        own = found["comparison"].setdefault(r["metric"], {})
        own[f"{r['objective']}, {r['steps']} steps"] = _rounded(r)
    for r in controlled.iter_rows(named=True):
        own = found["control"].setdefault(f"{r['attribute']}, {r['measure']}", {})
        own[r["images"]] = _rounded(r) | {"n": r["n"]}
    found["off target, mean sd"] = round(off_target["size"].mean(), 5)
    found["ranks"] = {
        f"{r['attribute']}, {r['measure']}": round(r["value"], 5) for r in ranks.drop_nulls("value").to_dicts()
    }
    return found


def _rounded(row: Mapping) -> dict[str, float]:
    return {k: round(row[k], 5) for k in ("value", "low", "high")}


def papers(runs: Mapping[str, Run]) -> pl.DataFrame:
    """The size of the papers' trainings: parameters, images, tokens, passes over the data, training FLOPs."""
    rows = [
        (
            name,
            f"{r.parameters / 1e9:.2f} B",
            f"{r.images:,}",
            f"{r.tokens:.2e}",
            f"{r.epochs:.0f}",
            f"{r.training_flops():.1e}",
        )
        for name, r in runs.items()
    ]
    columns = ["run", "parameters", "images", "tokens of a run", "passes over the data", "training FLOPs"]
    return pl.DataFrame(rows, columns, orient="row")
