"""Few steps instead of many: a student learns where the guided paths of its teacher lead (`make distilled`).

The path of a sample, from noise to latent, is cut into a few stretches. Of each the student learns the one velocity
that leads from its start to its end: progressive distillation (Salimans & Ho 2022) in a single round, of the guided
velocity (Meng et al. 2023). It then takes one step a stretch and asks nothing of the null caption.
"""

from collections.abc import Sequence
from itertools import compress, pairwise
from pathlib import Path

import polars as pl
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from tqdm import tqdm

from chexgen_lib.models.metadata import ATTRIBUTES, drop_attributes, encode_metadata, rows_of
from chexgen_lib.models.text import cache_texts
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.generate import Sampling, image_seed
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import own_settings
from chexgen_lib.training.config import TrainingError, native_bf16
from chexgen_lib.training.latent_cache import LatentCache, shard_path

ALWAYS = ("image_id", "details")  # of a Record's metadata; details of a finding that is not told are not read


def student_of(teacher: ChexGenTransformer, stretches: int) -> ChexGenTransformer:
    """A copy of a flow's transformer that is to learn its paths, cut into `stretches`."""
    student = type(teacher)(**own_settings(teacher.config) | {"distilled_steps": stretches})
    student.load_state_dict(teacher.state_dict())
    return student.to(teacher.device)


@torch.inference_mode()
def record_paths(
    folder: Path,
    pipeline: ChexGenPipeline,
    generator: str,
    requests: pl.DataFrame,
    sampling: Sampling,
    stretches: int,
) -> None:
    """Sample each request once and keep its path: a latent cache with `paths`, the shortest prompts first.

    A teacher that reads metadata is asked as it was trained: half of the requests by their text alone, the others by
    any subset of what their records assert, a fifth of those without the text.

    For `kept.kept`: called again after an interruption, it goes on with the shards that are missing.

    Args:
        pipeline: of a rectified flow.
        generator: its fingerprint (`pools.generate.fingerprint`), for the key alone.
        requests: image_id, prompt and, for a teacher that reads metadata, the columns `models.metadata.METADATA`.
        sampling: of the teacher; `batch_size` requests make a shard.
        stretches: of each path.

    Raises:
        TrainingError: if the steps cannot be cut into so many stretches, or the flow is shifted, so that its times are
            not evenly spaced.
    """
    if pipeline.transformer.flow_shift != 1:
        raise TrainingError("the paths of a shifted flow cannot be cut evenly: train with time_shift=1")
    if sampling.num_inference_steps % stretches:
        raise TrainingError(f"{sampling.num_inference_steps} steps cannot be cut into {stretches} equal stretches")
    requests = requests.sort(pl.col("prompt").str.len_chars(), "image_id")
    shards = list(requests.iter_slices(sampling.batch_size))
    pipeline.set_progress_bar_config(disable=True)
    for k, shard in enumerate(tqdm(shards, desc="paths", unit="shard")):
        if not shard_path(folder, k, len(shards)).exists():
            _paths(pipeline, shard, sampling, stretches).save(folder, k, len(shards))


def _paths(pipeline: ChexGenPipeline, requests: pl.DataFrame, sampling: Sampling, stretches: int) -> LatentCache:
    texts = cache_texts(pipeline.tokenizer, pipeline.text_encoder, requests["prompt"].to_list())
    seeds = [image_seed(image_id, 0, sampling.seed) for image_id in requests["image_id"]]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = randn_tensor((len(seeds), *pipeline.transformer.latent_shape), generator=generators)
    rows = _asked(requests, pipeline.transformer.metadata_sources, torch.Generator().manual_seed(seeds[0]))
    if rows is not None:
        bare = [k % 5 == 0 and len(row) > len(ALWAYS) for k, row in enumerate(rows)]
        texts = _without_text(texts, bare, pipeline.transformer.null_caption[:1])
    codes = None if rows is None else encode_metadata(rows, pipeline.transformer.metadata_sources)
    blank = torch.zeros_like(noise)
    _, states, mask, _ = LatentCache(blank, blank, **texts).batch(torch.arange(len(seeds)), torch.Generator())
    steps, kept = sampling.num_inference_steps // stretches, [noise]

    def keep(pipeline: ChexGenPipeline, i: int, t: torch.Tensor, tensors: dict) -> dict:
        if (i + 1) % steps == 0:
            kept.append(tensors["latents"].float().cpu())
        return {}

    with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=native_bf16()):
        pipeline(
            prompt_embeds=states,
            prompt_attention_mask=mask,
            metadata=rows,
            latents=noise,
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            guidance_interval=sampling.guidance_interval,
            callback_on_step_end=keep,
            output_type="latent",
        )
    paths = torch.stack(kept, dim=1).half()
    ends = paths[:, -1].clone()  # one file does not hold views of one tensor
    return LatentCache(ends, torch.zeros_like(ends), **texts, metadata=codes, paths=paths)


def _asked(requests: pl.DataFrame, sources: Sequence[str] | None, generator: torch.Generator) -> list[dict] | None:
    """What each request tells of its record, as the pipeline takes it; None for a teacher that reads no metadata."""
    if sources is None:
        return None
    rows = rows_of(requests, sources)
    told = ~drop_attributes(encode_metadata(rows, sources), generator, rows=0.5)[:, : len(ATTRIBUTES)].isnan()
    names = [{*ALWAYS, *compress(ATTRIBUTES, kept)} for kept in told.tolist()]
    return [{name: row[name] for name in row if name in own} for row, own in zip(rows, names, strict=True)]


def _without_text(texts: dict[str, Tensor], bare: Sequence[bool], null: Tensor) -> dict[str, Tensor]:
    """Text states as `cache_texts` returns them, with the null caption's first token [1, width] where `bare`."""
    spans = pairwise(texts["offsets"].tolist())
    rows = [null.to(texts["states"]) if no else texts["states"][a:b] for no, (a, b) in zip(bare, spans, strict=True)]
    return {"states": torch.cat(rows), "offsets": torch.tensor([0, *map(len, rows)]).cumsum(0)}
