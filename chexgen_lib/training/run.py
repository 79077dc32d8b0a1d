"""The moving parts of a training run, and the checkpoints that hold them."""

import copy
import hashlib
import json
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache, partial
from itertools import islice, starmap
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import send_to_device
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chexgen_lib import code_digest
from chexgen_lib.diffusion.objectives import random_stretch
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import drop_attributes
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import own_settings, remove, replacing
from chexgen_lib.training.config import SCHEDULES, TrainingConfig, TrainingError, native_bf16
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.sharding import copy_whole, load_whole_state, whole, whole_on_main, whole_state

Model = ChexGenTransformer | ControlledTransformer | BaselineUNet
Draw = tuple[list[Tensor], dict[str, Tensor], Tensor, Tensor]  # the model's inputs, its metadata, target, weight
NO_JSON = (json.JSONDecodeError, UnicodeDecodeError)
CHECKPOINT = re.compile(r"checkpoint-\d{8}")  # not a copy that somebody put beside it
IN_BLOCK = re.compile(r"\bblocks\.\d+\..*weight$|\bcopied_block\..*weight$")


class Learner(nn.Module):
    """The model, its null caption and its precision: under FSDP parameters are whole only within `forward`."""

    def __init__(self, model: Model, bf16: bool):
        super().__init__()
        self.model, self.bf16 = model, bf16
        self._no_split_modules = model._no_split_modules  # what accelerate's FSDP gathers at a time

    def forward(self, noisy: Tensor, t: Tensor, states: Tensor, mask: Tensor, dropped: Tensor, *condition, **given):
        """The model's prediction in float32, with the null caption where `dropped`, bool [B]."""
        states = torch.where(dropped[:, None, None], self.model.null_caption[: states.shape[1]], states)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(noisy, t, states, mask, *condition, **given).sample.float()


class Run:
    """The moving parts of a training run: all that a checkpoint holds."""

    def __init__(self, model: Model, config: TrainingConfig, accelerator: Accelerator, fingerprint: str):
        self.config, self.accelerator, self.fingerprint = config, accelerator, fingerprint
        self.step, self.history = 0, []
        self.code = code_digest.of(Path(__file__).with_name("trainer.py"))  # that runs, whatever is changed meanwhile
        self.encodes = model.metadata_sources is not None
        self.draws: Iterator[Draw] | None = None
        self.objective = config.build_objective()
        if accelerator.distributed_type == DistributedType.FSDP:
            model = copy.deepcopy(model)  # sharding changes a model's parameters and classes for good
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        optimizers = build_optimizers(model, config)
        if len(optimizers) > 1 and accelerator.distributed_type == DistributedType.FSDP:
            raise TrainingError(
                "Muon needs whole matrices, FSDP shards them: train with DDP, or muon_learning_rate=null"
            )
        # Stepped by hand, once an optimiser step, whatever the number of processes.
        kind, steps = SCHEDULES[config.schedule], (config.warmup_steps, config.steps)
        self.lr = [get_scheduler(kind, optimizer, None, *steps) for optimizer in optimizers]
        bf16 = config.precision == "bf16" or (config.precision == "auto" and native_bf16())
        self.learner, *self.optimizers = accelerator.prepare(Learner(model, bf16), *optimizers)
        self.ema = EMAModel(self.model.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75)

    @property
    def model(self) -> Model:
        """What is trained; under FSDP its parameters are shards, as are the optimiser's moments and the average."""
        return self.accelerator.unwrap_model(self.learner).model

    def optimise(self, cache: LatentCache, step: int) -> tuple[float, float]:
        """One optimiser step: mean loss over its micro-batches, and the gradient's norm before clipping."""
        accelerator = self.accelerator
        losses, norm = [], torch.tensor(0.0)
        self.draws = self.draws or self.batches(cache, step)
        for _ in range(accelerator.gradient_accumulation_steps):
            with accelerator.accumulate(self.learner):
                loss = self._loss(next(self.draws))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.learner.parameters(), self.config.clip_norm)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            losses.append(loss.detach())
        for schedule in self.lr:
            schedule.step()
        self.ema.step(self.model.parameters())
        self.step = step + 1
        return accelerator.reduce(torch.stack(losses).mean(), reduction="mean").item(), float(whole(norm))

    def settle(self, cache: LatentCache) -> None:
        """Let DDP pack the gradients as it does from its second step on, by a step whose gradients are dropped.

        It packs them anew, in the order in which they arrive, after the first step of a process. More than two numbers
        are added up in an order that depends on their place in the pack; without this, the first step of a resumed run
        would round otherwise than the same step of one that was not interrupted.
        """
        if self.accelerator.distributed_type in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
            self.accelerator.backward(self._loss(self._draw(cache, 0, self.accelerator.process_index)))
            for optimizer in self.optimizers:
                optimizer.optimizer.zero_grad()

    def batches(self, cache: LatentCache, step: int) -> Iterator[Draw]:
        """The micro-batches of this process, from a step on."""
        return ahead(partial(self._draw, cache), self._parts(step), self.threads)

    @property
    def threads(self) -> int:
        """That draw while a GPU computes; a CPU has nothing to wait for."""
        return 4 if self.accelerator.device.type == "cuda" else 0

    def _parts(self, step: int) -> Iterator[tuple[int, int]]:
        """This process's micro-batches from a step on: step, part."""
        own, first = self.accelerator.gradient_accumulation_steps, self.accelerator.process_index
        return ((k, part) for k in range(step, self.config.steps) for part in range(first * own, (first + 1) * own))

    def _draw(self, cache: LatentCache, step: int, part: int) -> Draw:
        """The inputs and the target of a micro-batch, a function of seed, step and part alone."""
        rows = step_rows(
            len(cache), step, part, self.config.gradient_accumulation, self.config.batch_size, self.config.seed
        )
        generator = torch.Generator().manual_seed(step_seed(self.config.seed, step, part))
        latents, states, mask, condition = cache.batch(rows, generator)
        if cache.paths is None:
            noise = torch.randn(latents.shape, generator=generator)
            t = self.objective.times(len(rows), generator)
            noisy, target = self.objective.noisy(latents, noise, t), self.objective.target(latents, noise)
        else:
            noisy, target, t = random_stretch(cache.paths[rows].float(), generator)
        dropped = torch.rand(len(rows), generator=generator) < self.config.caption_dropout
        # A dropped caption keeps its mask, as in the released code: the null caption is as long as the one it replaces.
        # Beside metadata it is one token long, so that its length says nothing.
        if self.encodes:
            mask[dropped, 1:] = False
        given = {} if cache.metadata is None else {"metadata": cache.metadata[rows]}
        if given and cache.paths is None:  # a path leads where its own metadata led the teacher
            given["metadata"] = drop_attributes(given["metadata"], generator, self.config.metadata_dropout)
        return [noisy, t, states, mask, dropped, *condition], given, target, self.objective.weight(t)

    def _loss(self, draw: Draw) -> Tensor:
        inputs, given, target, weight = send_to_device(draw, self.accelerator.device)
        prediction = self.learner(*inputs, **given)
        error = (prediction[:, : target.shape[1]] - target).square().mean(dim=(1, 2, 3))  # [B]
        return (weight * error).mean()

    def record(self, step: int, loss: float, norm: float) -> dict:
        if not torch.isfinite(torch.tensor([loss, norm])).all():
            raise TrainingError(f"loss {loss} with gradient norm {norm} at step {step}: lower the learning rate")
        entry = dict(step=step, loss=loss, grad_norm=norm, learning_rate=self.lr[0].get_last_lr()[0])
        self.history.append(entry)
        return entry

    def save(self, folder: Path) -> None:
        """Write a whole checkpoint beside the old one, then swap: a kill at any moment leaves one that loads."""
        weights, moments = whole_state(self.model, [o.optimizer for o in self.optimizers])
        average = whole_on_main(self.ema.shadow_params, self.accelerator.is_main_process)
        if not self.accelerator.is_main_process:
            return
        state = dict(
            fingerprint=self.fingerprint,
            step=self.step,
            ema_step=self.ema.optimization_step,
            lr=self.lr[0].last_epoch,
            history=self.history,
            code=self.code,
        )
        old = checkpoints(folder)
        with replacing(folder / f"checkpoint-{self.step:08d}") as partial:
            partial.mkdir()
            _save_tensors(weights, partial / "model.safetensors")
            _save_tensors({str(i): p for i, p in enumerate(average)}, partial / "ema.safetensors")
            torch.save(moments, partial / "optimizer.pt")
            (partial / "state.json").write_text(json.dumps(state))
            for path in partial.iterdir():  # or a loss of power may leave neither the old one nor this one
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        for path in old:
            remove(path)

    def resume(self, folder: Path) -> None:
        found = checkpoints(folder)
        if found:
            self._load(found[-1])
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device))
        if len(steps.unique()) > 1:
            raise TrainingError(f"not every process sees the checkpoint in {folder}: use a file system that all share")

    def _load(self, path: Path) -> None:
        try:
            state = json.loads((path / "state.json").read_text())
            if state["fingerprint"] != self.fingerprint:
                raise TrainingError(
                    f"{path} is of another run (model, data or settings differ, or an older version wrote it): move it "
                    "away"
                )
            if state["code"] != self.code:
                warnings.warn(
                    f"{path} was written by another version of the code: the training goes on from it, but does not "
                    "end with the bytes of one that is begun now",
                    stacklevel=2,
                )
            moments = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
            optimizers = [optimizer.optimizer for optimizer in self.optimizers]
            load_whole_state(self.model, optimizers, load_file(path / "model.safetensors"), moments)
            shadow = load_file(path / "ema.safetensors")
        except torch.OutOfMemoryError:  # a RuntimeError, but the checkpoint is whole
            raise
        except (OSError, KeyError, RuntimeError, TypeError, SafetensorError, *NO_JSON) as error:
            raise TrainingError(f"{path} is not a whole checkpoint ({error}): delete it") from error
        for i, parameter in enumerate(self.ema.shadow_params):
            copy_whole(shadow[str(i)], parameter)
        self.ema.optimization_step, self.step, self.history = (
            state["ema_step"],
            state["step"],
            state["history"],
        )
        for schedule in self.lr:
            schedule.load_state_dict({**schedule.state_dict(), "last_epoch": state["lr"]})

    @torch.no_grad()
    def leave_average(self, model: Model) -> None:
        """Put the averaged weights into `model`, the one that `train` was given, for use."""
        for parameter, average in zip(model.parameters(), self.ema.shadow_params, strict=True):
            parameter.copy_(whole(average))
        if self.config.gradient_checkpointing:
            model.disable_gradient_checkpointing()
        model.eval()


def ahead(function: Callable[..., Draw], calls: Iterable[tuple], threads: int) -> Iterator[Draw]:
    """`function` of each call, in order; `threads` are that many results ahead of what is asked for."""
    if not threads:
        yield from starmap(function, calls)
        return
    with ThreadPoolExecutor(threads) as pool:
        calls, waiting = iter(calls), deque()
        while True:
            waiting.extend(pool.submit(function, *call) for call in islice(calls, threads + 1 - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()


def build_optimizers(model: Model, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW for what is trained; with a `muon_learning_rate` for all but the blocks' matrices, which Muon trains."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    muon = config.muon_learning_rate is not None
    matrices = [name for name, p in trained.items() if muon and p.ndim == 2 and IN_BLOCK.search(name)]
    rest = [p for name, p in trained.items() if name not in matrices]
    settings = dict(lr=config.learning_rate, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, **settings, fused=True)]
    if muon and not matrices:
        raise TrainingError(f"{type(model).__name__} has no blocks of matrices for Muon: set muon_learning_rate=null")
    if muon:  # scaled so that an update is as large as AdamW's (Liu et al. 2025)
        settings = dict(lr=config.muon_learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        optimizers.append(torch.optim.Muon([trained[name] for name in matrices], **settings))
    return optimizers


def step_rows(n: int, step: int, part: int, parts: int, batch_size: int, seed: int) -> Tensor:
    """Rows of part `part` of step `step`: the data in a new order each epoch, no row twice before all were seen."""
    first = (step * parts + part) * batch_size
    positions = torch.arange(first, first + batch_size)
    rows = torch.empty(batch_size, dtype=torch.long)
    for epoch in (positions // n).unique().tolist():
        inside = positions // n == epoch
        rows[inside] = _order(n, epoch, seed)[positions[inside] % n]
    return rows


@lru_cache(maxsize=2)  # the end of one epoch and the beginning of the next are in one step
def _order(n: int, epoch: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(step_seed(seed, epoch, -1)))


def step_seed(*parts: int) -> int:
    """A seed of 63 bits that is a function of these numbers alone: (seed, step, micro-batch), say."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def fingerprint_of(model: Model, cache: LatentCache, config: TrainingConfig) -> str:
    """What identifies a run: its settings, some of each of the model's weights, some rows of all that the cache holds.

    Of the settings those that change weights or history (that are compared).
    """
    settings = {setting.name: getattr(config, setting.name) for setting in fields(config) if setting.compare}
    # Not where it came from; the flow's shift is a setting of the run.
    shape = {key: value for key, value in own_settings(model.config).items() if key != "flow_shift"}
    digest = hashlib.sha256(json.dumps([shape, settings], sort_keys=True, default=str).encode())
    held = [x for x in (cache.mean, cache.std, cache.states, cache.condition, cache.paths) if x is not None]
    rows = [x[:: max(1, len(x) // 64)] for x in held]  # not all of them: they may be larger than the memory
    # Some of each: an adapter's first weights are those of its base, whatever it has learnt.
    weights = [p.detach().flatten()[:: max(1, p.numel() // 64)] for p in model.parameters()]
    for tensor in (*rows, cache.offsets, *weights):
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    if cache.metadata is not None:
        digest.update(cache.metadata.numpy().tobytes())
    return digest.hexdigest()


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def checkpoints(folder: Path) -> list[Path]:
    """A training's whole checkpoints, the oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name))


def remove_checkpoints(folder: Path) -> None:
    """Remove a training's own checkpoints, also one whose writing was interrupted."""
    for path in [*checkpoints(folder), *folder.glob(".checkpoint-*.partial")]:
        remove(path)
