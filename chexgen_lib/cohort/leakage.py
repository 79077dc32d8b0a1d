"""An audit of patients in a finished run: no validation or test patient is in any training set or synthetic pool.

    python -m chexgen_lib.cohort.leakage runs/laptop

The audit reads the run's files (the cohort, its latent caches, the manifests of all pools, the patients of
11), not what the stages were meant to do. `make test` audits the run of profile ci.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from safetensors import safe_open

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.layout import FLAGS, CohortError
from chexgen_lib.records import person

CACHES = {"stage1": "pretraining", "stage2": "alignment"}  # flag of the cohort -> name of its latent caches
ELSEWHERE = "pools/lungs"  # its records are not the cohort's; `experiments.lungs` keeps the patients apart
# Manifests of what is evaluated, below these folders; all others are trained on.
TESTED = ("synthesis", "pools/matched", "pools/rivals/synthesis", "pools/rivals/matched")


def walk(root: str | Path) -> pl.DataFrame:
    """All sets of images of a run, with the patients that they share.

    Returns:
        A row a set: set, trained_on (or else validated or tested on), images, patients, shared (how many of its
        patients, or of their studies, are on the other side, too) and first (one of them).

    Raises:
        CohortError: if the run has no cohort, a manifest names a record that the cohort lacks, or a latent cache does
            not hold as many pairs as the cohort has records for it.
    """
    root = Path(root)
    sets = list(_sets(root))
    table = layout.load(root / "cohort").group_by(patient_id=person()).agg("study_id")
    keys = {patient: {patient, *studies} for patient, studies in table.iter_rows()}
    sides = {
        side: {key for _, trained, people in sets if trained == side for p in set(people) for key in keys.get(p, {p})}
        for side in (True, False)
    }
    rows = []
    for name, trained, people in sets:
        shared = sorted(p for p in set(people) if not sides[not trained].isdisjoint(keys.get(p, {p})))
        rows.append((name, trained, len(people), people.n_unique(), len(shared), shared[0] if shared else None))
    columns = {"set": pl.String, "trained_on": pl.Boolean, "images": pl.Int64, "patients": pl.Int64}
    return pl.DataFrame(rows, columns | {"shared": pl.Int64, "first": pl.String}, orient="row")


def _sets(root: Path) -> Iterator[tuple[str, bool, pl.Series]]:
    """Name, whether it is trained on, and the patient of each image."""
    table = layout.load(root / "cohort").with_columns(patient_id=person())  # one in several datasets is one
    for flag in FLAGS:
        for (split,), rows in table.filter(flag).group_by("split", maintain_order=True):
            if split != "test" and flag in CACHES:
                _check_cache(root / "cohort" / f"{CACHES[flag]}_{split}", len(rows))
            yield f"cohort, {flag}, {split}", split == "train", rows["patient_id"]
    for path in sorted(root.glob("**/manifest.parquet")):
        name = path.parent.relative_to(root).as_posix()
        # stage 12 samples too, but for metadata that need not belong to any patient
        if name.startswith(("synthesis", "pools")) and name != ELSEWHERE:
            yield name, not name.startswith(TESTED), _patients(path, table)
    chosen = root / "pools/fairness.parquet"
    if chosen.is_file():
        for (role,), rows in (
            pl.read_parquet(chosen, glob=False).with_columns(patient_id=person()).group_by("role", maintain_order=True)
        ):
            yield f"fairness, {role}", role == "train", rows["patient_id"]


def _patients(path: Path, table: pl.DataFrame) -> pl.Series:
    """The patient of each row of a manifest: of its record if it names one, else of its image."""
    manifest = pl.read_parquet(path, glob=False)
    records = manifest.select(image_id="record" if "record" in manifest.columns else "image_id")
    known = records.join(table.select("image_id", "patient_id"), on="image_id", how="left", maintain_order="left")
    if lost := known.filter(pl.col("patient_id").is_null())["image_id"].to_list():
        raise CohortError(f"{path}: {len(lost)} records are not the cohort's, first {lost[0]!r}; redo that stage")
    return known["patient_id"]


def _check_cache(folder: Path, records: int) -> None:
    pairs = 0
    for path in folder.glob("[0-9]*.safetensors"):
        with safe_open(path, "pt") as shard:
            pairs += shard.get_slice("mean").get_shape()[0]
    if pairs != records:
        raise CohortError(f"{folder}: {pairs} pairs of {records} records of the cohort; redo stage 02_cohort")


def main() -> int:
    """Print the sets; returns 1 if a patient is on both sides."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m chexgen_lib.cohort.leakage ROOT   (of a run, such as runs/laptop)")
    try:
        sets = walk(sys.argv[1])
    except CohortError as error:
        sys.exit(f"error: {error}")
    for name, trained, images, patients, shared, first in sets.iter_rows():
        about = f"{name:28s}{'trained on' if trained else 'evaluated':12s}{images:6d} images of {patients:5d} patients"
        print(about + (f", {shared} of them on the other side, too, first {first!r}" if shared else ""))
    leaks = sets.filter(pl.col("shared") > 0)["set"].to_list()
    print(
        f"{len(sets)} sets; "
        + (f"patients on both sides in {', '.join(leaks)}" if leaks else "no patient is on both sides")
    )
    return int(bool(leaks))


if __name__ == "__main__":
    sys.exit(main())
