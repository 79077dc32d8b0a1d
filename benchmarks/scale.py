"""A million records through selection, images, encoding and an epoch of the loader: images a second and memory.

    python -m benchmarks.scale [--records 100000 1000000] [--processes 2] [--folder FOLDER]

The records are those of the shipped tables, repeated with fresh ids (`curation_scale`), each with a PNG of 16 px (a
thousand different ones). Frozen networks are random and tiny; nothing else is: each step calls what stage 02 and the
trainer call, in a process of its own with up to `--processes` workers of one thread. The loader draws one epoch in the
trainer's order. Last it draws pairs of true size (`xl2` at 256 px, texts of 120 tokens of T5-XXL), from the memory and
from the disk.

Writes scale.csv beside this file: records, step, images, seconds, images_per_s, images_per_cpu_s (of processor time, so
that other programs on the machine do not count), processes, `peak_gib` (resident memory of the step's processes
together, each page that they share counted in each) and `own_gib` (the same without the pages of mapped files, which
the system takes back when it needs them). The cache of files read and written is in neither. Started again, it goes on
with the first step that has not ended; the folder is removed at the end.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import polars as pl
import psutil
import torch
from PIL import Image
from tqdm import tqdm
from transformers import BertConfig, BertModel

from benchmarks import curation_scale
from chexgen_lib.cohort import layout
from chexgen_lib.cohort.build import build
from chexgen_lib.cohort.select import Selection
from chexgen_lib.descriptions import corpus
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.sizing import PAPERS
from chexgen_lib.models.text import load_tokenizer
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.paper.training import STAGE1
from chexgen_lib.records import FRONTAL
from chexgen_lib.rehearsal import weights
from chexgen_lib.sources.files import with_stamps
from chexgen_lib.storage import height, remove, replacing, write_json
from chexgen_lib.training.cohort_cache import (
    PURPOSES,
    build_with_latents,
    descriptions,
    encode_rows,
    select_records,
)
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.run import Run
from chexgen_lib.training.trainer import accelerator_for

SIZE = 16  # px
BATCH = 192  # of stage I on a GPU
SOURCES = tuple(curation_scale.TOTAL)
BYTES = 10_000  # of disk for a record
LARGE, LARGE_SHARD = 2688, 256  # pairs of true size, 2.7 GB
GIB = 2**30


# What the steps read


def prepare(folder: Path, processes: int, n: int) -> None:
    """Curated records of `n` rows, their files, and the frozen networks."""
    if not (folder / "records.parquet").is_file():
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        plan = curation_scale.repetitions(n, folder / "tables")
        corpus.build(curation_scale.fresh(plan), folder / "corpus", workers=1)
        names = pl.format("{}/{}.png", pl.col("row") // 1000, "row")
        table = corpus.stream(folder / "corpus").with_row_index("row").with_columns(image=names).drop("row")
        with replacing(folder / "records.parquet") as partial_path:
            table.sink_parquet(partial_path)
        remove(folder / "corpus")
    write_files(folder / "files", height(pl.scan_parquet(folder / "records.parquet")))
    weights.autoencoder(folder / "autoencoder")
    load_tokenizer("minilm").save_pretrained(folder / "encoder")
    torch.manual_seed(0)
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertModel(BertConfig(**size)).save_pretrained(folder / "encoder")


def write_files(folder: Path, n: int) -> None:
    """The PNG of each row, a thousand in a folder; those of the others are links to the first folder's."""
    for first in tqdm(range(0, n, 1000), desc="files, in thousands"):
        if (folder / f"{first // 1000}").is_dir():
            continue
        with replacing(folder / f"{first // 1000}") as place:
            place.mkdir()
            for k in range(first, min(first + 1000, n)):
                if first:
                    os.link(folder / "0" / f"{k % 1000}.png", place / f"{k}.png")
                else:
                    pixels = np.random.default_rng(k).integers(0, 256, (SIZE, SIZE), np.uint8)
                    Image.fromarray(pixels).save(place / f"{k}.png")


def prepare_large(folder: Path, processes: int) -> None:
    """Pairs of the size that stage I has in the paper, the same numbers in every shard."""
    run, generator = PAPERS[STAGE1], torch.Generator().manual_seed(0)
    latents = torch.randn(LARGE_SHARD, 4, run.resolution // 8, run.resolution // 8, generator=generator).half()
    states = torch.randn(LARGE_SHARD * run.text_tokens, run.text_dim, generator=generator).half()
    offsets = torch.arange(LARGE_SHARD + 1) * run.text_tokens
    for k in tqdm(range(LARGE // LARGE_SHARD), desc="pairs of true size"):
        LatentCache(latents, latents.abs(), states, offsets).save(folder / "large", k, LARGE // LARGE_SHARD)


# The steps: each returns the number of its images, and writes what has its name


def selection(folder: Path, processes: int) -> int:
    second = {"train": 45_000, "val": 2_000, "test": 3_500}
    chosen = [
        Selection("stage1", SOURCES, {"train": None, "val": 5_000}, natural=True),
        Selection("stage2", ["padchest"], second, prompt="impression", views=FRONTAL, natural=True),
    ]
    kept(
        select_records,
        folder / "selection",
        records=folder / "records.parquet",
        selections=chosen,
        text_encoder=str(folder / "encoder"),
        max_tokens=120,
        seed=0,
        with_images=True,
    )
    return height(pl.scan_parquet(folder / "selection/records.parquet"))


def images(folder: Path, processes: int) -> int:
    chosen, root = pl.scan_parquet(folder / "selection/records.parquet"), str(folder / "files")
    records = with_stamps(chosen, root)
    kept(build, folder / "images", {"workers": processes}, records=records, resolutions=[SIZE], image_root=root)
    return height(chosen)


def encoding(folder: Path, processes: int) -> int:
    rows = layout.rows(layout.load(folder / "images", ["stage1", "split"]), "stage1", "train")
    frozen = load_autoencoder(str(folder / "autoencoder")), str(folder / "encoder")
    prompts = partial(descriptions, folder / "images", load_tokenizer(str(folder / "encoder")))
    encode_rows(folder / "encoding", folder / "images", rows, SIZE, frozen, prompts, workers=processes)
    return len(rows)


def loader(folder: Path, processes: int) -> int:
    return draw_epoch(folder / "encoding")


def large_from_memory(folder: Path, processes: int) -> int:
    for path in (folder / "large").iterdir():  # into the system's cache of files
        path.read_bytes()
    return draw_epoch(folder / "large")


def large_from_disk(folder: Path, processes: int) -> int:
    for path in (folder / "large").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return draw_epoch(folder / "large")


def draw_epoch(folder: Path) -> int:
    """Every batch of an epoch, as `trainer.train` draws them."""
    cache = LatentCache.load(folder)
    config = TrainingConfig(steps=len(cache) // BATCH, batch_size=BATCH)
    model = ChexGenTransformer.of_size(
        "ci", cache.mean.shape[1], sample_size=cache.mean.shape[-1], text_dim=cache.states.shape[1]
    )
    run = Run(model, config, accelerator_for(config), fingerprint="")
    for _ in tqdm(run.batches(cache, 0), total=config.steps, desc="batches"):
        pass
    return config.steps * BATCH


def cohort(inputs: Path, folder: Path, processes: int) -> None:
    """Images and latents in one call, as stage 02 makes them; `kills` interrupts it."""
    chosen, root = pl.scan_parquet(inputs / "selection/records.parquet"), str(inputs / "files")
    kept(
        build_with_latents,
        folder / "cohort",
        {"workers": processes},
        records=with_stamps(chosen, root),
        resolutions=dict.fromkeys(PURPOSES, SIZE),
        autoencoder=load_autoencoder(str(inputs / "autoencoder")),
        text_encoder=str(inputs / "encoder"),
        image_root=root,
    )


STEPS = {step.__name__: step for step in (selection, images, encoding, loader)}
LARGE_STEPS = {step.__name__: step for step in (large_from_memory, large_from_disk)}


# Their measurement


def measured(name: str, folder: Path, processes: int) -> dict:
    """A row of the table: the step in a process of its own."""
    place = folder / "result.json"
    place.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.scale", "--step", name]
    command += ["--folder", folder, "--processes", str(processes)]
    child, peak, own, most, spent = psutil.Popen(list(map(str, command))), 0, 0, 0, {}
    while child.poll() is None:
        now = [found for process in tree(child) if (found := resident(process))]
        peak, own = max(peak, sum(rss for rss, _ in now)), max(own, sum(rss - file for rss, file in now))
        most, spent = max(most, len(now)), spent | dict(map(processor_time, tree(child)))
        sleep(0.1)
    if child.returncode:
        raise SystemExit(f"{name} failed: see above")
    found = json.loads(place.read_text())
    speeds = {"images_per_s": found["seconds"], "images_per_cpu_s": sum(spent.values())}
    speeds = {column: round(found["images"] / seconds) for column, seconds in speeds.items()}
    memory = {"peak_gib": round(peak / GIB, 2), "own_gib": round(own / GIB, 2)}
    return {"step": name} | found | speeds | {"processes": most} | memory


def tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def processor_time(process: psutil.Process) -> tuple[int, float]:
    """A process and the seconds that it has computed so far."""
    try:
        return process.pid, sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return -1, 0.0


def resident(process: psutil.Process) -> tuple[int, int] | None:
    """Bytes in memory, and those of them that map files; None of a process that has ended."""
    try:
        text = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Rss")}
    return (sum(sizes.values()), sizes["RssFile"]) if sizes else None


def run_step(name: str, folder: Path, processes: int) -> None:
    """In the process of a step: the time that it takes without its imports."""
    started = perf_counter()
    count = (STEPS | LARGE_STEPS)[name](folder, processes)
    write_json({"images": count, "seconds": round(perf_counter() - started, 1)}, folder / "result.json")


def measure_all(root: Path, sizes: list[int], processes: int) -> list[dict]:
    """The rows of all sizes; those of an earlier start are kept in `root`."""
    noted, rows = root / "rows.json", []
    rows = json.loads(noted.read_text()) if noted.is_file() else []
    jobs = [(n, f"{n}", STEPS, partial(prepare, n=n)) for n in sizes]
    jobs += [(LARGE, "large", LARGE_STEPS, prepare_large)]
    for n, name, steps, make in jobs:
        todo = [step for step in steps if not any(row["records"] == n and row["step"] == step for row in rows)]
        if not todo:
            continue
        make(root / name, processes)
        for step in todo:
            for begun in (root / name).glob(f"*{step}*"):  # by an earlier start, whose time would be missing
                remove(begun)
            rows.append({"records": n} | measured(step, root / name, processes))
            print(rows[-1], flush=True)
            write_json(rows, noted)
        remove(root / name)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "scale"))
    parser.add_argument("--step", choices=STEPS | LARGE_STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--cohort-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cohort_of:
        try:
            cohort(arguments.cohort_of, arguments.folder, arguments.processes)
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        return
    if arguments.step:
        run_step(arguments.step, arguments.folder, arguments.processes)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    needed = max(max(arguments.records) * BYTES, LARGE * 2**20)
    if (free := shutil.disk_usage(arguments.folder).free) < needed:
        raise SystemExit(f"{arguments.folder} has {free / GIB:.0f} GiB free, {needed / GIB:.0f} are needed: --folder")
    rows = measure_all(arguments.folder, arguments.records, arguments.processes)
    pl.DataFrame(rows).write_csv(Path(__file__).with_suffix(".csv"))
    remove(arguments.folder)


if __name__ == "__main__":
    main()
