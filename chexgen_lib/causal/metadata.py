"""Records as a table that a causal model is fitted on: complete rows, and an account of the others."""

import polars as pl

from chexgen_lib.causal.graph import CausalError, Graph
from chexgen_lib.records import FINDINGS

VIEWS = {"PA": "PA", "AP": "AP", "AP SUPINE": "AP", "LATERAL": "LATERAL"}  # others are left out


def metadata_table(records: pl.DataFrame, graph: Graph) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The variables of a graph for Records of sources that annotate all of them, one row each.

    A finding that a source annotates and leaves open in a record, because the report does not mention it or is unsure,
    counts as absent: an assumption that prevalences depend on.

    Returns:
        the table, with `patient_id` where the records have it; and what was left out, with columns source, reason and
        n. Both add up to the records.

    Raises:
        CausalError: for a variable that Records do not have.
    """
    if missing := [name for name in graph.kinds if name not in records.columns]:
        raise CausalError(
            f"Records have no {', '.join(missing)}: take them out of the graph, or join them to the records first"
        )
    findings = [name for name in FINDINGS if name in graph.kinds]
    annotated = records.group_by("source").agg(pl.col(f).is_not_null().any() for f in findings)
    lacking = {row["source"]: [f for f in findings if not row[f]] for row in annotated.iter_rows(named=True)}
    others = [name for name in graph.kinds if name not in (*findings, "source")]
    view = pl.col("view").replace_strict(VIEWS, default=None, return_dtype=pl.String)
    table = records.with_columns(view, *(pl.col(f).fill_null(0).cast(pl.Int8) for f in findings))
    reason = pl.col("source").replace_strict(
        {source: f"no {', '.join(names)} in this source" for source, names in lacking.items() if names},
        default=None,
        return_dtype=pl.String,
    )
    unknown = pl.coalesce(
        [pl.when(pl.col(n).is_null()).then(pl.lit(f"{n} unknown, or a rare view")) for n in others] or [pl.lit(None)]
    )
    table = table.with_columns(reason=pl.coalesce(reason, unknown))
    left_out = table.drop_nulls("reason").group_by("source", "reason").agg(n=pl.len()).sort("source", "reason")
    kept = [*graph.kinds, *(["patient_id"] if "patient_id" in table.columns else [])]
    return table.filter(pl.col("reason").is_null()).select(kept), left_out
