"""A walk of the patients through a finished run: nobody who is validated or tested on may have taught anything.

    python -m chexgen_lib.cohort.leakage runs/laptop

reads what the run left (the cohort, its latent caches, the manifests of all pools, the patients of 11), not what the
stages meant to do. `make test` walks the run of profile ci.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.cohort.layout import FLAGS, CohortError
from chexgen_lib.training.latent_cache import LatentCache

CACHES = {"stage1": "pretraining", "stage2": "alignment"}  # flag of the cohort -> name of its latent caches
ELSEWHERE = "pools/lungs"  # of a folder that is no part of the cohort; `experiments.lungs` keeps its patients apart
TESTED = ("synthesis", "pools/matched")  # manifests of what is measured; all others are of what is learnt from


def walk(root: str | Path) -> pl.DataFrame:
    """Every set of images of a run: set, taught (learnt from, or else chosen by or tested on), images, patients,
    shared (patients of it who are on the other side, too) and first (one of them).

    Raises:
        CohortError: if the run has no cohort, a manifest names a record that the cohort lacks, or a latent cache does
            not hold as many pairs as the cohort has records for it.
    """
    root = Path(root)
    sets = list(_sets(root))
    sides = {side: {p for _, taught, people in sets if taught == side for p in people} for side in (True, False)}
    rows = []
    for name, taught, people in sets:
        shared = sorted(set(people) & sides[not taught])
        rows.append((name, taught, len(people), people.n_unique(), len(shared), shared[0] if shared else None))
    columns = {"set": pl.String, "taught": pl.Boolean, "images": pl.Int64, "patients": pl.Int64}
    return pl.DataFrame(rows, columns | {"shared": pl.Int64, "first": pl.String}, orient="row")


def _sets(root: Path) -> Iterator[tuple[str, bool, pl.Series]]:
    """Name, whether it is learnt from, and the patient of each image."""
    table = cohort.load(root / "cohort")
    for flag in FLAGS:
        for (split,), rows in table.filter(flag).group_by("split", maintain_order=True):
            if split != "test" and flag in CACHES:
                _check_cache(root / "cohort" / f"{CACHES[flag]}_{split}.safetensors", len(rows))
            yield f"cohort, {flag}, {split}", split == "train", rows["patient_id"]
    for path in sorted(root.glob("**/manifest.parquet")):
        name = path.parent.relative_to(root).as_posix()
        # 12 draws, too, but people who need not exist
        if name.startswith(("synthesis", "pools")) and name != ELSEWHERE:
            yield name, name not in TESTED, _patients(path, table)
    chosen = root / "pools/fairness.parquet"
    if chosen.is_file():
        for (role,), rows in pl.read_parquet(chosen).group_by("role", maintain_order=True):
            yield f"fairness, {role}", role == "train", rows["patient_id"]


def _patients(path: Path, table: pl.DataFrame) -> pl.Series:
    """The patient of each row of a manifest: of its record, where it names one, or else of its image."""
    manifest = pl.read_parquet(path)
    asked = manifest.select(image_id="record" if "record" in manifest.columns else "image_id")
    known = asked.join(table.select("image_id", "patient_id"), on="image_id", how="left", maintain_order="left")
    if lost := known.filter(pl.col("patient_id").is_null())["image_id"].to_list():
        raise CohortError(f"{path}: {len(lost)} records are not the cohort's, first {lost[0]!r}; redo that stage")
    return known["patient_id"]


def _check_cache(path: Path, records: int) -> None:
    if (pairs := len(LatentCache.load(path))) != records:
        raise CohortError(f"{path}: {pairs} pairs of {records} records of the cohort; redo stage 02_cohort")


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m chexgen_lib.cohort.leakage ROOT   (of a run, such as runs/laptop)")
    try:
        found = walk(sys.argv[1])
    except CohortError as error:
        sys.exit(f"error: {error}")
    for name, taught, images, patients, shared, first in found.iter_rows():
        about = f"{name:28s}{'taught' if taught else 'tested':8s}{images:6d} images of {patients:5d} patients"
        print(about + (f", {shared} of them on the other side, too, first {first!r}" if shared else ""))
    leaks = found.filter(pl.col("shared") > 0)["set"].to_list()
    print(
        f"{len(found)} sets; "
        + (f"patients on both sides in {', '.join(leaks)}" if leaks else "no patient is on both sides")
    )
    return int(bool(leaks))


if __name__ == "__main__":
    sys.exit(main())
