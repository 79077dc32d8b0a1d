"""How much compute the training of the baseline generator takes of what ChexGen's two stages take, in profile laptop.

    python -m benchmarks.baseline_compute

writes benchmarks/baseline_compute.csv. FLOPs of a training are those of a forward pass of one image at its training's
resolution, with texts of as many tokens as the model reads at most, as torch counts them, times three (the backward
pass takes twice the forward's) and times the images seen: steps x batch x accumulation, on one process. Stage I of
the laptop is the shipped foundation: its recipe says how many images it saw, and how many the weights that it went on
from. Frozen encoders are not counted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from chexgen_lib.models.autoencoder import downsampling, load_autoencoder
from chexgen_lib.models.baseline import MAX_TOKENS, BaselineUNet
from chexgen_lib.models.foundation import SHIPPED, load_transformer, read_recipe
from chexgen_lib.models.sizing import count_flops
from chexgen_lib.workflow import dag

TEXT_DIM = 384  # of MiniLM


def images_seen(training: Mapping[str, Any]) -> int:
    """Images that a training of these settings draws."""
    return training["steps"] * training["batch_size"] * training["gradient_accumulation"]


def shown(recipe: Mapping[str, Any]) -> int:
    """Images that a shipped model has seen, in its training and in those that it went on from."""
    return recipe["presentations"] + (shown(recipe["start"]) if "start" in recipe else 0)


@torch.no_grad()
def forward_flops(model: torch.nn.Module, latents: tuple[int, int, int], tokens: int) -> int:
    """FLOPs of one image through a model."""
    states = torch.zeros(1, tokens, TEXT_DIM)
    return count_flops(lambda: model(torch.zeros(1, *latents), torch.zeros(1), states))


def trainings() -> list[dict[str, Any]]:
    """A row for each training of the two generators."""
    params, autoencoder = dag.plain("laptop"), load_autoencoder(SHIPPED)
    sides = {name: params["cohort"][f"{name}_resolution"] // downsampling(autoencoder) for name in ("low", "high")}
    foundation, rows = load_transformer(), []  # stage II goes on with it
    for generator, name, resolution, images in (
        ("ChexGen", "foundation", "high", shown(read_recipe())),
        ("ChexGen", "alignment", "high", images_seen(params["alignment"]["training"])),
        ("baseline", "baseline", "low", images_seen(params["baseline"]["training"])),
    ):
        latents = autoencoder.config.latent_channels, sides[resolution], sides[resolution]
        if generator == "baseline":
            model, reads = BaselineUNet.of_size(params["baseline"]["model"], latents, TEXT_DIM), MAX_TOKENS
        else:
            model, reads = foundation, len(foundation.null_caption)
        flops = 3 * images * forward_flops(model.eval(), latents, reads)
        about = {"generator": generator, "training": name, "px": params["cohort"][f"{resolution}_resolution"]}
        rows.append(about | {"parameters": model.num_parameters(), "images": images, "flops": flops})
    return rows


def main() -> None:
    table = pl.DataFrame(trainings())
    ours = pl.col("flops").filter(pl.col("generator") == "ChexGen").sum()
    table = table.with_columns(share_of_chexgen=(pl.col("flops") / ours).round(4))
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
