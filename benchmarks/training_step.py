"""What a training step costs on this machine, and how near it is to what the matrix products alone would take.

    python -m benchmarks.training_step [--rounds 3] [--batch 64]

writes benchmarks/training_step.csv. At the size `laptop` (128 px, 64 tokens, texts of 40 tokens), forward, backward and
optimiser: float32; bfloat16 with torch's fused attention; bfloat16 with `models.layers.attention`; the same with Muon.
`ratio` is images a second over those of float32. `roofline` is the share of the images a second that the model's own
matrix products allow, each timed alone in that precision: 1 would be a step that does nothing else. Ways take turns.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import polars as pl
import torch
import torch.nn.functional as F

from chexgen_lib.models import layers
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.run import build_optimizers

TOKENS, TEXT = 64, 40
WAYS = {  # name: bfloat16, attention in two products, Muon
    "float32": (False, False, False),
    "bfloat16, fused attention": (True, False, False),
    "bfloat16, attention in two products": (True, True, False),
    "the same, Muon": (True, True, True),
}


def step_of(batch: int, bf16: bool, products: bool, muon: bool) -> Callable[[], None]:
    """A training step of `batch` images."""
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("laptop", sample_size=16, text_dim=384, objective="rectified_flow")
    config = TrainingConfig(1, batch, muon_learning_rate=1e-3 if muon else None, objective="rectified_flow")
    optimizers = build_optimizers(model, config)
    latents, target, states = (
        torch.randn(batch, 4, 16, 16),
        torch.randn(batch, 4, 16, 16),
        torch.randn(batch, TEXT, 384),
    )
    mask, t = torch.ones(batch, TEXT, dtype=torch.bool), torch.linspace(0, 999, batch)

    def step() -> None:
        with patch.object(layers, "SHORT", layers.SHORT if products else 0):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                prediction = model(latents, t, states, mask).sample.float()
            F.mse_loss(prediction, target).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def seconds_of_products(batch: int, bf16: bool) -> float:
    """What the linear layers' and attention's products of one step take alone, forward and twice backward."""
    model = ChexGenTransformer.of_size("laptop", sample_size=16, text_dim=384)
    dtype = torch.bfloat16 if bf16 else torch.float32
    calls: list[tuple[int, ...]] = []
    hooks = [
        module.register_forward_hook(lambda m, x, y: calls.append((x[0].numel() // x[0].shape[-1], *m.weight.shape)))
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    inputs = torch.randn(batch, 4, 16, 16), torch.zeros(batch), torch.randn(batch, TEXT, 384)
    with torch.inference_mode():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    heads, width = model.config.num_heads, model.config.hidden_size
    total = sum(_seconds((n, i), (i, o), dtype) for n, o, i in calls)
    for keys in (TOKENS, TEXT):  # scores, then values
        for left, right in (
            ((TOKENS, width // heads), (width // heads, keys)),
            ((TOKENS, keys), (keys, width // heads)),
        ):
            shapes = ((batch * heads, *left), (batch * heads, *right))
            total += model.config.depth * _seconds(*shapes, dtype)
    return 3 * total


def _seconds(left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype) -> float:
    """The quickest of several products of these shapes."""
    a, b, times = torch.randn(left, dtype=dtype), torch.randn(right, dtype=dtype), []
    for _ in range(6):
        start = perf_counter()
        a @ b
        times.append(perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    steps = {name: step_of(options.batch, *way) for name, way in WAYS.items()}
    seconds = defaultdict(list)
    for round_ in range(options.rounds + 1):
        for name, step in steps.items():
            start = perf_counter()
            step()
            if round_:  # the first warms up
                seconds[name].append(perf_counter() - start)
    products = {bf16: seconds_of_products(options.batch, bf16) for bf16 in (False, True)}
    rate = {name: options.batch / median(times) for name, times in seconds.items()}
    rows = [
        {
            "way": name,
            "images_per_second": round(rate[name], 1),
            "ratio": round(rate[name] / rate["float32"], 2),
            "roofline": round(products[WAYS[name][0]] * rate[name] / options.batch, 2),
            "batch": options.batch,
            "threads": torch.get_num_threads(),
        }
        for name in WAYS
    ]
    table = pl.DataFrame(rows)
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
