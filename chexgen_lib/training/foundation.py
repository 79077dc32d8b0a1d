"""Stage I at the size of a foundation: many rendered radiographs, trained on once, shipped with the package.

As in the paper, the generator has seen far more images than any task that uses it. The laptop profile has only minutes;
`notebooks/03_foundation.ipynb` (`make foundation`) takes hours, and the DAG reads its weights.
"""

from pathlib import Path

from diffusers import AutoencoderKL

from chexgen_lib.cohort import layout
from chexgen_lib.training.cohort_cache import encode_rows

SHARD = 512  # pairs that are encoded together


def build_pairs(
    folder: Path,
    cohort: Path,
    autoencoder: AutoencoderKL,
    text_encoder: str,
    resolution: int,
    workers: int = 2,
) -> None:
    """Make `train` and `val`, latent caches of the images of each split, in their order.

    Without the latents' deviations: the shipped autoencoder's are a hundredth of a latent, and a foundation sees each
    image a few times only. Called again after an interruption, it goes on with the shards that are missing.

    Args:
        cohort: folder of the images (`cohort.build.build`); another autoencoder needs no other images.
        text_encoder: a name, as `load_text_encoder` takes it.
        workers: processes of one thread each.
    """
    table = layout.load(cohort, ["split", "prompt"])
    for split in ("train", "val"):
        wanted = table.with_row_index("row").filter(split=split).select("row", "prompt")
        frozen = autoencoder, text_encoder
        encode_rows(folder / split, cohort, wanted, resolution, frozen, SHARD, workers, deviations=False)
