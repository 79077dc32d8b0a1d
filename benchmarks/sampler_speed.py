"""Sampling beside diffusers' PixArt-alpha pipeline: same weights, noise, captions, steps and outputs.

    python benchmarks/sampler_speed.py [--size b2] [--batches 2 8] [--steps 4] [--rounds 3]

writes benchmarks/sampler_speed_DEVICE.csv. Both pipelines sample 256 px latents (256 tokens) with DDIM and guidance 4.0
for captions of 15 to 90 of 120 tokens; the autoencoder, the same for both, is left out. They are timed in turns and the
median round counts. PixArt's weights are ours under its names, so both end in the same latents; the table says how
nearly. Rows in bfloat16 hold bf16 weights in both; in a run with int8 weights (a CPU's), PixArt's are float32.
`psnr_db` is that of the latents against ours in float32.
"""

import argparse
import platform
from pathlib import Path
from statistics import median
from time import perf_counter

import polars as pl
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from torch import Tensor

from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sampling.schedulers import ddim_scheduler

TOKENS, WIDTH = 120, 4096  # of the captions, as T5 XXL gives them
RENAMED = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.shift_scale_table": "scale_shift_table",
    "blocks": "transformer_blocks",
    "shift_scale_gate_table": "scale_shift_table",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.proj": "attn2.to_out.0",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
SPLIT = {"cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"), "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v")}


def ours(size: str, sample_size: int) -> ChexGenTransformer:
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size(
        size, sample_size=sample_size, out_channels=8, text_dim=WIDTH, gelu="tanh"
    ).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (name.startswith("final_layer") or "cross_attn.proj" in name):
            torch.nn.init.normal_(parameter, std=0.02)  # the zeros of a fresh model would hide differences
    return model


def pixart(model: ChexGenTransformer) -> PixArtTransformer2DModel:
    """diffusers' model with the weights of ours."""
    config = model.config
    twin = PixArtTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.hidden_size // config.num_heads,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        cross_attention_dim=config.hidden_size,
        sample_size=config.sample_size,
        patch_size=config.patch_size,
        caption_channels=config.text_dim,
        use_additional_conditions=False,
    )
    state = {}
    for name, value in model.state_dict().items():
        if name in ("pos_embed", "y_embedder.y_embedding"):
            continue
        parts = next((parts for part, parts in SPLIT.items() if part in name), None)
        if parts:
            part = next(part for part in SPLIT if part in name)
            renamed = {name.replace(part, p): v for p, v in zip(parts, value.chunk(len(parts)), strict=True)}
        else:
            renamed = {name: value}
        for key, tensor in renamed.items():
            for old, new in RENAMED.items():
                key = key.replace(old, new) if f".{old}" in f".{key}" else key
            state[key] = tensor
    missing, unexpected = twin.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"pos_embed.pos_embed"}:
        raise ValueError(f"the models do not match: missing {missing}, unexpected {unexpected}")
    return twin.eval()


def captions(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    lengths = torch.randint(15, 91, (batch,), generator=generator)
    states = torch.randn(batch, TOKENS, WIDTH, generator=generator) * 0.2
    return states, torch.arange(TOKENS) < lengths[:, None]


def samplers(model: ChexGenTransformer, device: str, weights: str, compiled: bool) -> dict:
    """name -> (states, mask, noise, steps) -> latents."""
    dtype = torch.float32 if weights == "int8" else getattr(torch, weights)
    tokenizer, encoder = load_text_encoder("minilm")
    parts = dict(vae=new_autoencoder((8, 8, 8)), text_encoder=encoder, tokenizer=tokenizer)
    mine = ChexGenPipeline(model, **parts, scheduler=ddim_scheduler())
    theirs = PixArtAlphaPipeline(
        tokenizer,
        None,  # the captions are given as states, whose type would become the encoder's
        AutoencoderKL(
            latent_channels=4,
            block_out_channels=(8,) * 4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        pixart(model),
        DDIMScheduler.from_config(ddim_scheduler().config),
    )
    for pipe in (mine, theirs):
        pipe.to(device)
        pipe.transformer.to(dtype)
        pipe.set_progress_bar_config(disable=True)
    if weights == "int8":
        mine.transformer = int8_weights(mine.transformer)
    if compiled:
        theirs.transformer = torch.compile(theirs.transformer)
    size = 8 * model.config.sample_size

    def sample_mine(states: Tensor, mask: Tensor, noise: Tensor, steps: int) -> Tensor:
        return mine(
            prompt_embeds=states,
            prompt_attention_mask=mask,
            latents=noise,
            num_inference_steps=steps,
            output_type="latent",
        ).images

    def sample_theirs(states: Tensor, mask: Tensor, noise: Tensor, steps: int) -> Tensor:
        null = mine.transformer.null_caption.to(states).expand_as(states)
        return theirs(
            prompt=None,
            negative_prompt=None,
            prompt_embeds=states.to(device, dtype),
            prompt_attention_mask=mask.to(device),
            negative_prompt_embeds=null.to(device, dtype),
            negative_prompt_attention_mask=mask.to(device),
            latents=noise.to(device, dtype),
            num_inference_steps=steps,
            guidance_scale=4.0,
            height=size,
            width=size,
            use_resolution_binning=False,
            output_type="latent",
        ).images

    return {"ours": sample_mine, "pixart, compiled" if compiled else "pixart": sample_theirs}


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, the peak being the range of `b`."""
    a, b = a.float().cpu(), b.float().cpu()
    return float(20 * torch.log10((b.max() - b.min()) / (a - b).square().mean().sqrt().clamp(min=1e-12)))


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="b2", choices=SIZES)
    parser.add_argument("--sample-size", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--compile", action="store_true", help="also PixArt under torch.compile")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for batch in options.batches:
        states, mask = captions(batch)
        noise = torch.randn(batch, 4, *[options.sample_size] * 2, generator=torch.Generator().manual_seed(0))
        reference = None
        for weights in options.weights:
            model = ours(options.size, options.sample_size)
            arms = samplers(model, device, weights, compiled=False)
            if options.compile:
                arms |= samplers(model, device, weights, compiled=True)
            seconds: dict[str, list[float]] = {name: [] for name in arms}
            latents = {}
            for turn in range(options.rounds + 1):  # the first warms up
                for name, sample in arms.items():
                    synchronise(device)
                    start = perf_counter()
                    latents[name] = sample(states, mask, noise, options.steps)
                    synchronise(device)
                    if turn:
                        seconds[name].append(perf_counter() - start)
            reference = latents["ours"] if reference is None else reference
            for name in arms:
                rows.append(
                    dict(
                        size=options.size,
                        tokens=(options.sample_size // 2) ** 2,
                        batch=batch,
                        steps=options.steps,
                        weights="float32" if weights == "int8" and name != "ours" else weights,
                        sampler=name,
                        seconds=round(median(seconds[name]), 3),
                        ratio_to_ours=round(median(seconds[name]) / median(seconds["ours"]), 2),
                        psnr_db=round(min(psnr(latents[name], reference), 200.0), 1),
                    )
                )
                print(rows[-1], flush=True)
    machine = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads, {platform.machine()}"
    )
    table = pl.DataFrame(rows).with_columns(machine=pl.lit(machine), torch=pl.lit(torch.__version__))
    table.write_csv(Path(__file__).with_name(f"sampler_speed_{device}.csv"))


if __name__ == "__main__":
    main()
