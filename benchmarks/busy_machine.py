"""What one other busy process costs, by how long threads spin that wait for each other before they sleep.

    python -m benchmarks.busy_machine [--rounds 2] [--seconds 4]

writes benchmarks/busy_machine.csv: median seconds of a training step, of sampling and of a classifier's training step,
at the sizes of the profile `laptop`, alone and beside a process that uses one core. `to_quiet` compares with the same
policy alone, `to_spinning` compares with spinning, the default of libgomp, under the same load; 2 is twice as slow.
`briefly` is what stages and commands set (`chexgen_lib.processes`), `sleeping` does not spin at all. Each policy has a
process of its own, since OpenMP reads it once; processes and neighbours take turns.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter

import polars as pl
import torch
import torch.nn.functional as F

from chexgen_lib.diffusion.objectives import NoisePrediction
from chexgen_lib.diffusion.schedulers import dpm_solver_scheduler
from chexgen_lib.learners import classifier
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.processes import SPIN_BRIEFLY
from chexgen_lib.sampling.pipeline import assemble

SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}  # no default of ours: a quiet machine loses by it
POLICIES = {"spinning": {}, "briefly": SPIN_BRIEFLY, "sleeping": SLEEPING}
LOADS = ("quiet", "busy")
RESULTS = Path(__file__).with_suffix(".csv")


def training_step() -> Callable[[], None]:
    """Stage I: 32 latents of 64 px, texts of 40 of 120 tokens."""
    model, objective = ChexGenTransformer.of_size("laptop", sample_size=8, text_dim=384), NoisePrediction()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    latents, noise, states = torch.randn(32, 4, 8, 8), torch.randn(32, 4, 8, 8), torch.randn(32, 120, 384)
    mask, t = torch.arange(120).expand(32, 120) < 40, torch.arange(32) * 31

    def step() -> None:
        loss = F.mse_loss(model(objective.noisy(latents, noise, t), t, states, mask).sample[:, :4], noise)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def sampler() -> Callable[[], None]:
    """Four images of 128 px in five steps, with guidance."""
    model = ChexGenTransformer.of_size("laptop", sample_size=16, text_dim=384).eval()
    pipeline = assemble(model, "shipped", "minilm")
    pipeline.scheduler = dpm_solver_scheduler()
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(["Small right pleural effusion."] * 4, num_inference_steps=5, guidance_scale=4.0)


def classifier_step() -> Callable[[], None]:
    """16 images of 128 px."""
    net = classifier.Classifier(classifier.SIZES["laptop"]).net.train()
    images = torch.randn(16, 1, 128, 128).to(memory_format=torch.channels_last)
    labels = torch.ones(16, net.classifier.out_features)

    def step() -> None:
        F.binary_cross_entropy_with_logits(net(images), labels).backward()
        net.zero_grad()

    return step


TASKS = {"training step": training_step, "sampling": sampler, "classifier step": classifier_step}


@contextmanager
def neighbour() -> Iterator[None]:
    """One other process that uses one core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(seconds: float) -> list[dict]:
    """Median seconds of each task under each load, with the policy of this process."""
    rows = []
    for name, build in TASKS.items():
        torch.manual_seed(0)
        task = build()
        for load in LOADS:
            with neighbour() if load == "busy" else nullcontext():
                task()
                times, start = [], perf_counter()
                while len(times) < 2 or perf_counter() - start < seconds:
                    before = perf_counter()
                    task()
                    times.append(perf_counter() - before)
            rows.append({"task": name, "load": load, "seconds": median(times)})
    return rows


def summary(rows: list[dict]) -> pl.DataFrame:
    """The median of the rounds, and the ratios."""
    rounds = defaultdict(list)
    for row in rows:
        rounds[row["task"], row["policy"], row["load"]].append(row["seconds"])
    middle = {key: median(values) for key, values in rounds.items()}
    table = [
        {
            "task": task,
            "policy": policy,
            "load": load,
            "seconds": round(middle[task, policy, load], 4),
            "to_quiet": round(middle[task, policy, load] / middle[task, policy, "quiet"], 2),
            "to_spinning": round(middle[task, policy, load] / middle[task, "spinning", load], 3),
            "rounds": len(rounds[task, policy, load]),
        }
        for task in TASKS
        for policy in POLICIES
        for load in LOADS
    ]
    return pl.DataFrame(table).with_columns(cores=pl.lit(os.cpu_count()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy_machine", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # in a process of the benchmark's
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.seconds)))
        return
    environment = {k: v for k, v in os.environ.items() if k not in (*SLEEPING, "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.busy_machine", "--measure", "--seconds", str(arguments.seconds)]
    rows = []
    for number in range(arguments.rounds):
        for policy, settings in list(POLICIES.items())[:: 1 if number % 2 == 0 else -1]:
            printed = subprocess.run(command, env=environment | settings, check=True, stdout=subprocess.PIPE, text=True)
            rows += [row | {"policy": policy} for row in json.loads(printed.stdout.splitlines()[-1])]
    table = summary(rows)
    table.write_csv(RESULTS)
    print(table)


if __name__ == "__main__":
    main()
