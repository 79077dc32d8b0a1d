"""What a training run takes, before it starts: parameters, tokens, FLOPs, memory, disk, GPU-hours and cost.

The formulas can be checked against the model itself (`check`) and against measured steps (`time_steps`).

>>> run = PAPERS["ChexGen stage I"]
>>> run.steps, run.tokens_per_image
(124897, 256)

FLOPs count a multiplication and an addition as two. Sizes are in bytes, times in hours, money in the price's currency.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from time import perf_counter

import polars as pl
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from chexgen_lib.models.loading import fastest_device
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer, Size
from chexgen_lib.paper import training

PEAK_FLOPS = {"A100": 312e12, "H100": 989e12}  # bf16 a second, dense; NVIDIA's data sheets of the SXM modules
STATE_BYTES = 4 * 5  # a parameter: float32 weight, gradient, AdamW's two moments, average (EMA)
# Bytes that a block keeps for its backward pass, for each token and channel: in bf16, with a fused attention. Counted
# on the model in tests/models/test_sizing.py.
ACTIVATION_BYTES = 55
TEXT_BYTES = 4  # and of its text's keys and values, for each text token and channel
CHECKPOINT_BYTES = 4  # and with activation checkpointing: the block's input alone, in float32


@dataclass(frozen=True)
class Run:
    """A training run of a `ChexGenTransformer` on latents that are 8 times smaller than the image.

    Attributes:
        size: a name in `SIZES`, or a `Size` that has none.
        resolution: of the images, in px a side, a multiple of 16.
        images: pairs in the data set.
        epochs: how often each is seen.
        batch_size: images of an optimiser step, of all GPUs.
        text_tokens, text_dim: length (at most) and width of the text states.
        latent_channels: 4 of Stable Diffusion's autoencoder.

    Raises:
        ValueError: if the size is unknown or a number is out of range.
    """

    size: str | Size
    resolution: int
    images: int
    epochs: float
    batch_size: int
    text_tokens: int = 120
    text_dim: int = 4096
    latent_channels: int = 4

    def __post_init__(self):
        if isinstance(self.size, str) and self.size not in SIZES:
            raise ValueError(f"unknown model size {self.size!r}; choose one of {', '.join(SIZES)}")
        if self.resolution < 16 or self.resolution % 16:
            raise ValueError(f"resolution must be a multiple of 16 px, not {self.resolution}")
        for name in ("images", "epochs", "batch_size", "text_tokens", "text_dim", "latent_channels"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")

    def of_tokens(self, tokens: float) -> "Run":
        """The same run for as many epochs as make up that number of image tokens."""
        return replace(self, epochs=tokens / (self.images * self.tokens_per_image))

    @property
    def shape(self) -> Size:
        """Depth and width of the transformer."""
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    @cached_property
    def parameters(self) -> int:
        """Parameters of the transformer, counted on the meta device."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.model().parameters())

    def model(self) -> ChexGenTransformer:
        """The transformer, untrained."""
        size = dict(sample_size=self.resolution // 8, text_dim=self.text_dim, text_tokens=self.text_tokens)
        return ChexGenTransformer(**self.shape.config(self.latent_channels), **size)

    def batch(self, images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise in the shape of a batch: latents, times, text states and mask, as the transformer takes them.

        As in training, the states have a gradient: that of the learned null caption, which replaces some of them.
        """
        side = self.resolution // 8
        states = torch.randn(images, self.text_tokens, self.text_dim, requires_grad=True)
        mask = torch.ones(images, self.text_tokens)
        return torch.randn(images, self.latent_channels, side, side), torch.full((images,), 500), states, mask

    @property
    def tokens_per_image(self) -> int:
        """Image tokens: patches of 2 x 2 latent pixels, so of 16 x 16 pixels."""
        return (self.resolution // 16) ** 2

    @property
    def samples(self) -> float:
        """Images seen, all epochs."""
        return self.images * self.epochs

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return math.ceil(self.samples / self.batch_size)

    @property
    def tokens(self) -> float:
        """Image tokens seen."""
        return self.samples * self.tokens_per_image

    @property
    def block_flops(self) -> int:
        """FLOPs of all blocks for one image, with the keys and values of its text given: matrix products alone."""
        tokens, text, width = self.tokens_per_image, self.text_tokens, self.shape.hidden_size
        attention = 4 * width**2 + 2 * tokens * width  # q, k, v and output; products with keys and values
        cross_attention = 2 * width**2 + 2 * text * width  # q and output; the products
        return 2 * self.shape.depth * tokens * (attention + cross_attention + 8 * width**2)  # last: the MLP

    @property
    def forward_flops(self) -> int:
        """FLOPs of one image's forward pass with a text of full length."""
        size, width = self.shape, self.shape.hidden_size
        text = self.text_tokens * (self.text_dim * width + width**2 + size.depth * 2 * width**2)  # with keys, values
        time = 256 * width + width**2 + 6 * width**2
        ends = (
            self.tokens_per_image * width * 4 * self.latent_channels * (2 + size.learned_variance)
        )  # patches of 4 pixels
        return self.block_flops + 2 * (text + time + ends)

    def training_flops(self, checkpointing: bool = False) -> float:
        """FLOPs of the whole run: a backward pass is two forward ones; checkpointing computes the blocks again."""
        return (3 * self.forward_flops + checkpointing * self.block_flops) * self.samples

    def memory(self, batch_size: int, checkpointing: bool = False, sharded_over: int = 1) -> int:
        """Bytes on a GPU: weights, gradients, optimiser and average, and the activations of its `batch_size` images.

        sharded_over: GPUs that share all but the activations (FSDP); 1 for DDP. What the framework adds, and the
        autoencoder and text encoder, which the caches replace, are not counted.
        """
        activations = batch_size * self.activation_bytes(checkpointing)
        return math.ceil(self.parameters * STATE_BYTES / sharded_over + activations)

    def activation_bytes(self, checkpointing: bool = False) -> int:
        """Bytes that the blocks keep of one image for the backward pass."""
        size = self.shape
        # with checkpointing every block keeps its input, and one at a time all, while it is computed again
        each = size.depth * CHECKPOINT_BYTES + ACTIVATION_BYTES if checkpointing else size.depth * ACTIVATION_BYTES
        text = size.depth * TEXT_BYTES * self.text_tokens
        return (self.tokens_per_image * each + text) * size.hidden_size

    @property
    def latent_cache(self) -> int:
        """Bytes of the cached latents: mean and deviation of four channels in float16 (`LatentCache`)."""
        return self.images * 2 * 4 * (self.resolution // 8) ** 2 * 2

    def text_cache(self, mean_tokens: float | None = None) -> float:
        """Bytes of the cached text states in float16; texts of `mean_tokens` tokens, or of full length."""
        return self.images * (mean_tokens or self.text_tokens) * self.text_dim * 2

    def gpu_hours(self, utilisation: float, gpu: str = "A100", checkpointing: bool = False) -> float:
        """Hours on one GPU, of all GPUs together, at a `utilisation` 0..1 of its peak: measure that.

        Recomputed activations count as work that the GPU does, not as work that is useful.
        """
        if gpu not in PEAK_FLOPS:
            raise ValueError(f"unknown GPU {gpu!r}; choose one of {', '.join(PEAK_FLOPS)}")
        if not 0 < utilisation <= 1:
            raise ValueError(f"utilisation must be above 0 and at most 1, not {utilisation!r}")
        return self.training_flops(checkpointing) / (PEAK_FLOPS[gpu] * utilisation) / 3600

    def cost(self, price: float, utilisation: float, gpu: str = "A100", checkpointing: bool = False) -> float:
        """Cost at a `price` for an hour of one GPU."""
        if not price >= 0:
            raise ValueError(f"price must be at least 0, not {price!r}")
        return price * self.gpu_hours(utilisation, gpu, checkpointing)


def _stated(name: str) -> Run:
    """ChexGen's training as the paper states it."""
    paper = training.values(name)
    return Run("xl2", paper["resolution"], paper["pairs"], paper["epochs"], paper["batch"])


def _flow() -> Run:
    """RadiT's largest training (arXiv 2606.19460); resolution and batch are assumptions of this library."""
    paper = training.values(training.FLOW)
    return Run("rf-1b", 512, paper["images"], 1, 32 * 64).of_tokens(paper["tokens"])


PAPERS = {name: _stated(name) for name in (training.STAGE1, training.STAGE2)} | {training.FLOW: _flow()}


def table(runs: dict[str, Run], gpus: int, utilisation: float, price: float, gpu: str = "A100") -> pl.DataFrame:
    """One row per run: its total cost on `gpus` GPUs at a `utilisation` of their peak and a `price` per GPU-hour.

    Memory is that of one GPU, in GiB: `ddp`, `checkpointing` (DDP too), and `fsdp` (with checkpointing); caches in GB.
    """
    rows = []
    for name, run in runs.items():
        each = math.ceil(run.batch_size / gpus)
        hours = run.gpu_hours(utilisation, gpu)
        memory = {
            "ddp": run.memory(each),
            "checkpointing": run.memory(each, checkpointing=True),
            "fsdp": run.memory(each, checkpointing=True, sharded_over=gpus),
        }
        rows.append(
            {"run": name, "parameters": run.parameters, "tokens an image": run.tokens_per_image, "steps": run.steps}
            | {"TFLOPs an image, forward": run.forward_flops / 1e12, "FLOPs of the run": run.training_flops()}
            | {"GPU-hours": hours, "days": hours / gpus / 24, "cost": run.cost(price, utilisation, gpu)}
            | {f"{kind}, GiB": value / 2**30 for kind, value in memory.items()}
            | {"latent cache, GB": run.latent_cache / 1e9, "text cache, GB": run.text_cache() / 1e9}
        )
    return pl.DataFrame(rows)


# The formulas against the model itself


def check(run: Run, images: int = 5) -> pl.DataFrame:
    """Each formula beside what is counted on the model itself: quantity, formula, measured, ratio.

    FLOPs are those that torch counts in a forward and a backward pass; activations are the bytes that autograd keeps in
    bf16, of blocks (the difference between two depths). `images`: of the batch; one that divides no weight's size.
    """
    torch.manual_seed(0)
    model, batch = run.model().train(), run.batch(images)
    pairs = {
        "parameters": (run.parameters, sum(p.numel() for p in model.parameters())),
        "FLOPs an image, forward": (run.forward_flops, count_flops(lambda: model(*batch)) / images),
    }
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        found = count_flops(lambda: model(*batch).sample.square().mean().backward()) / images
        name = f"FLOPs an image, training{', checkpointing' if checkpointing else ''}"
        pairs[name] = (run.training_flops(checkpointing) / run.samples, found)
    deep = [replace(run, size=replace(run.shape, depth=depth)) for depth in (2, 4)]
    kept = [kept_bytes(own.model().train(), own.batch(images)) for own in deep]
    blocks = (deep[1].activation_bytes() - deep[0].activation_bytes(), (kept[1] - kept[0]) / images)
    pairs["bytes of two blocks an image"] = blocks
    rows = [(name, float(formula), float(measured)) for name, (formula, measured) in pairs.items()]
    found = pl.DataFrame(rows, ["quantity", "formula", "measured"], orient="row")
    return found.with_columns(ratio=pl.col("formula") / pl.col("measured"))


def count_flops(compute: Callable[[], object]) -> int:
    """FLOPs of a call, as torch counts them; its fused attention on CPUs, which it does not count, is avoided."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops()


def kept_bytes(model: ChexGenTransformer, batch: tuple[Tensor, ...]) -> int:
    """Bytes that autograd keeps of a forward pass in bf16, parameters and their copies aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        count = storage.nbytes() // tensor.element_size()
        if storage.data_ptr() not in own and count % len(batch[0]) == 0:  # copies of weights are no multiple of it
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor is held so that its place stays taken
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        model(*batch).sample.float().square().mean()
    return sum(size for size, _ in kept.values())


def time_steps(runs: dict[str, Run], images: int, steps: int) -> pl.DataFrame:
    """Optimiser steps of `images` images here, the runs in turns: run, seconds (median), FLOP/s, of_peak.

    FLOP/s are the formula's over the seconds; of_peak is their share of the machine's largest square matrix product, in
    float32 too (on a GPU: model FLOP utilisation against what it reaches, not against its data sheet).
    """
    device = fastest_device()
    calls = {name: _step(run, images, device) for name, run in runs.items()}
    peak = _matrix_product(device)
    seconds: dict[str, list[float]] = {name: [] for name in ("peak", *calls)}
    for turn in range(steps + 1):  # the first warms up
        for name, call in {"peak": peak[0], **calls}.items():
            start = perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(perf_counter() - start)
    best = peak[1] / min(seconds.pop("peak"))
    rows = [
        (name, median(own), images * runs[name].training_flops() / runs[name].samples / median(own))
        for name, own in seconds.items()
    ]
    found = pl.DataFrame(rows, ["run", "seconds", "FLOP/s"], orient="row")
    return found.with_columns(of_peak=pl.col("FLOP/s") / best)


def _step(run: Run, images: int, device: torch.device) -> Callable[[], None]:
    torch.manual_seed(0)
    model, batch = run.model().train().to(device), [x.detach().to(device) for x in run.batch(images)]
    batch[2].requires_grad_()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        model(*batch).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _matrix_product(device: torch.device) -> tuple[Callable[[], Tensor], int]:
    """A product of square matrices, and its FLOPs."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    return lambda: a @ b, 2 * side**3
