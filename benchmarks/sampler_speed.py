"""Sampling beside diffusers' PixArt-alpha pipeline: same weights, noise, captions, steps and outputs.

    python -m benchmarks.sampler_speed [--size b2] [--batches 2 8] [--steps 3] [--rounds 3]

writes benchmarks/sampler_speed_DEVICE.csv. Both pipelines sample 256 px latents (256 tokens) with DDIM and guidance 4.0
for captions of 15 to 90 of 120 tokens; the autoencoder, the same for both, is left out. All are timed in turns, and the
median round counts; compiling is not timed. PixArt's weights are ours under its names, so all end in nearly the same
latents: `latents_db` and `image_db` are the PSNR of the latents, and of what the shipped autoencoder makes of them,
against ours in float32. `images_per_s_to_pixart_W` is how many times as many images a second as PixArt with weights W.
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import polars as pl
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from torch import Tensor
from tqdm import trange

from chexgen_lib.diffusion.schedulers import ddim_scheduler
from chexgen_lib.models.autoencoder import decode, load_autoencoder, new_autoencoder
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline

TOKENS, WIDTH = 120, 4096  # of the captions, as T5 XXL gives them
KINDS = (("float32", False), ("bfloat16", False), ("bfloat16", True))  # weights, compiled
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


@dataclass(frozen=True)
class Arm:
    """A sampler, its weights, and whether its transformer is compiled: PixArt's whole, ours block by block."""

    sampler: str
    weights: str
    compiled: bool

    @property
    def name(self) -> str:
        return f"{self.sampler}_{self.weights}{'_compiled' if self.compiled else ''}"


Sample = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # states, mask, noise, steps -> latents


def sampler(arm: Arm, model: ChexGenTransformer, device: str) -> Sample:
    tokenizer, encoder = load_text_encoder("minilm")
    dtype = torch.float32 if arm.weights == "int8" else getattr(torch, arm.weights)
    null = model.null_caption.detach()
    if arm.sampler == "ours":
        parts = dict(vae=new_autoencoder((8, 8, 8)), text_encoder=encoder, tokenizer=tokenizer)
        pipe = ChexGenPipeline(model, **parts, scheduler=ddim_scheduler())
    else:
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(8,) * 4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        # The captions are given as states; their type would become the text encoder's, so there is none.
        scheduler = DDIMScheduler.from_config(ddim_scheduler().config)
        pipe = PixArtAlphaPipeline(tokenizer, None, vae, pixart(model), scheduler)
    pipe.to(device)
    pipe.transformer.to(dtype)
    pipe.set_progress_bar_config(disable=True)
    if arm.weights == "int8":
        pipe.transformer = int8_weights(pipe.transformer)
    if arm.compiled and arm.sampler == "ours":
        pipe.transformer.compile_repeated_blocks()
    elif arm.compiled:
        pipe.transformer = torch.compile(pipe.transformer)
    size = 8 * model.config.sample_size

    def sample_ours(states: Tensor, mask: Tensor, noise: Tensor, steps: int) -> Tensor:
        return pipe(
            prompt_embeds=states,
            prompt_attention_mask=mask,
            latents=noise,
            num_inference_steps=steps,
            output_type="latent",
        ).images

    def sample_pixart(states: Tensor, mask: Tensor, noise: Tensor, steps: int) -> Tensor:
        return pipe(
            prompt=None,
            negative_prompt=None,
            prompt_embeds=states.to(device, dtype),
            prompt_attention_mask=mask.to(device),
            negative_prompt_embeds=null.expand_as(states).to(device, dtype),
            negative_prompt_attention_mask=mask.to(device),
            latents=noise.to(device, dtype),
            num_inference_steps=steps,
            guidance_scale=4.0,
            height=size,
            width=size,
            use_resolution_binning=False,
            output_type="latent",
        ).images

    return sample_ours if arm.sampler == "ours" else sample_pixart


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, the peak being the range of `b`; 200 where they are equal."""
    a, b = a.float().cpu(), b.float().cpu()
    error = (a - b).square().mean().sqrt().clamp(min=1e-12)
    return min(round(float(20 * torch.log10((b.max() - b.min()) / error)), 1), 200.0)


def timed(arms: dict[Arm, Sample], inputs: tuple, rounds: int) -> tuple[dict[Arm, float], dict[Arm, Tensor]]:
    """Median seconds of each arm, taken in turns, and what it sampled; a first round warms up."""
    seconds: dict[Arm, list[float]] = {arm: [] for arm in arms}
    latents = {}
    for turn in trange(rounds + 1, desc="rounds"):
        for arm, sample in arms.items():
            synchronise()
            start = perf_counter()
            latents[arm] = sample(*inputs)
            synchronise()
            if turn:
                seconds[arm].append(perf_counter() - start)
    return {arm: median(times) for arm, times in seconds.items()}, latents


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="b2", choices=SIZES)
    parser.add_argument("--sample-size", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    autoencoder, rows = load_autoencoder("shipped"), []
    chosen = [Arm(who, w, c) for who in ("ours", "pixart") for w, c in KINDS]
    chosen += [Arm("ours", "int8", c) for c in (False, True) if device == "cpu"]
    for batch in options.batches:
        torch._dynamo.reset()
        states, mask = captions(batch)
        noise = torch.randn(batch, 4, *[options.sample_size] * 2, generator=torch.Generator().manual_seed(0))
        arms = {arm: sampler(arm, ours(options.size, options.sample_size), device) for arm in chosen}
        seconds, latents = timed(arms, (states, mask, noise, options.steps), options.rounds)
        reference = latents[chosen[0]]
        images = {arm: torch.from_numpy(decode(autoencoder, x.float().cpu())) for arm, x in latents.items()}
        for arm in arms:
            rows.append(
                dict(
                    size=options.size,
                    tokens=(options.sample_size // 2) ** 2,
                    batch=batch,
                    steps=options.steps,
                    sampler=arm.sampler,
                    weights=arm.weights,
                    compiled=arm.compiled,
                    seconds=round(seconds[arm], 3),
                    latents_db=psnr(latents[arm], reference),
                    image_db=psnr(images[arm], images[chosen[0]]),
                )
                | {
                    f"images_per_s_to_{peer.name}": round(seconds[peer] / seconds[arm], 2)
                    for peer in arms
                    if peer.sampler == "pixart"
                }
            )
            print(rows[-1], flush=True)
    gpu, threads = device == "cuda", f"{torch.get_num_threads()} threads, {platform.machine()}"
    table = pl.DataFrame(rows).with_columns(
        machine=pl.lit(torch.cuda.get_device_name() if gpu else threads), torch=pl.lit(torch.__version__)
    )
    table.write_csv(Path(__file__).with_name(f"sampler_speed_{device}.csv"))


if __name__ == "__main__":
    main()
