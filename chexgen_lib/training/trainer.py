"""One trainer for every stage and objective, on cached latents (paper, Methods, eq. 1; ED Table 4).

Every random number of step k comes from a generator seeded with (seed, k, micro-batch), and the rows of step k are a
function of (seed, k) too. So a checkpoint needs no random state, and a run that was interrupted and resumed equals one
that was not, bit for bit. Processes share a step's micro-batches: their number, and whether each holds the whole model
(DDP) or a shard of it (FSDP), changes results by rounding alone.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from dvclive import Live
from tqdm import tqdm

from chexgen_lib.diffusion.objectives import TIMES, NoisePrediction, RectifiedFlow
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import ATTRIBUTES
from chexgen_lib.storage import write_json
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.run import Model, Run, checkpoints, fingerprint_of, remove_checkpoints, step_seed

CLOCK = ".clock.json"  # hidden: no output of a stage


def train(
    model: Model,
    cache: LatentCache,
    config: TrainingConfig,
    folder: Path,
    keep_last: bool = False,
    continued_from: Path | None = None,
) -> list[dict]:
    """Train `model` in place (of a `ControlledTransformer`, its adapter) and leave its averaged (EMA) weights in it.

    Writes `folder/log` (dvclive) while it runs, `folder/.clock.json` (the seconds that it has taken, over all
    interruptions) and `folder/checkpoint-K` each `checkpoint_every` steps. Started again
    with the same model size, data and settings it resumes from the newest checkpoint; checkpoints of any other run are
    an error, and all are removed when the run completes.

    Under `accelerate launch` every process calls this with equal arguments and has the result in its `model` (under
    FSDP on the device where it was). The first writes, into a folder that all can read. Checkpoints are whole: one
    process or several, sharded or not, can resume from what others wrote.

    Args:
        keep_last: keep the final checkpoint. A caller that still has to save or sample can then be interrupted without
            losing the training; it deletes the checkpoint when done.
        continued_from: a folder from whose newest checkpoint to resume while `folder` has none.

    Returns:
        the history: one dict of step, loss, grad_norm (before clipping) and learning_rate each `log_every` steps.

    Raises:
        TrainingError: if model and data do not fit, a step's micro-batches cannot be shared evenly by the processes, a
            checkpoint is of another run, or the loss is not finite.
    """
    _check_fit(model, cache, config)
    if config.objective == "rectified_flow" and not isinstance(model, ControlledTransformer):
        model.register_to_config(flow_shift=config.time_shift)  # sampling goes by it
    accelerator = accelerator_for(config)
    run = Run(model.train(), config, accelerator, fingerprint=fingerprint_of(model, cache, config))
    begun = folder if checkpoints(folder) or continued_from is None else continued_from
    run.resume(begun)
    run.settle(cache)
    started, spent = perf_counter(), read_seconds(begun) if run.step else 0.0
    logged = {"resume": False, "save_dvc_exp": False, "dvcyaml": None, "report": None}
    # replaying the history keeps the log of a resumed run equal to an uninterrupted one
    with Live(str(folder / "log"), **logged) if accelerator.is_main_process else nullcontext() as live:
        for entry in run.history:
            _log(live, entry)
        progress = tqdm(
            range(run.step, config.steps),
            initial=run.step,
            total=config.steps,
            desc="training",
            disable=not accelerator.is_main_process,
        )
        for step in progress:
            loss, norm = run.optimise(cache, step)
            if step % config.log_every == 0 or step == config.steps - 1:
                entry = run.record(step, loss, norm)
                progress.set_postfix(loss=f"{entry['loss']:.4f}")
                _log(live, entry)
            if keep_last if step + 1 == config.steps else (step + 1) % config.checkpoint_every == 0:
                _save(run, folder, spent + perf_counter() - started)
    if accelerator.is_main_process and not (folder / CLOCK).is_file():  # nothing was left to do
        write_json({"seconds": spent}, folder / CLOCK)
    run.leave_average(model)
    if accelerator.is_main_process and not keep_last:
        remove_checkpoints(folder)
    return run.history


@torch.inference_mode()
def noise_error(model: Model, cache: LatentCache, batch_size: int = 64, seed: int = 0) -> float:
    """Mean squared error of the predicted noise over a whole cache, at fixed noise and evenly spread times.

    For a rectified flow it is the noise that the predicted velocity leads to. The two objectives add noise on different
    schedules: compare only models of the same objective.
    """
    objective, total = NoisePrediction() if model.objective == "ddpm" else RectifiedFlow(), 0.0
    for step, rows in enumerate(torch.arange(len(cache)).split(batch_size)):
        generator = torch.Generator().manual_seed(step_seed(seed, step))
        latents, states, mask, condition = cache.batch(rows, generator)
        noise = torch.randn(latents.shape, generator=generator)
        t = (rows * 619 + 499) % TIMES  # near the golden section: few pairs are spread over all times, too
        noisy = objective.noisy(latents, noise, t)
        inputs = (x.to(model.device) for x in (noisy, t, states, mask, *condition))
        prediction = model(*inputs, **_metadata(cache, rows, model)).sample[:, : latents.shape[1]]
        total += F.mse_loss(objective.noise(prediction.cpu(), noisy, t), noise).item() * len(rows)
    return total / len(cache)


@torch.inference_mode()
def path_error(student: Model, cache: LatentCache, batch_size: int = 64) -> float:
    """How far the student's steps end from where its teacher's paths do: mean square, over the latents' variance."""
    total, ends = 0.0, []
    for rows in torch.arange(len(cache)).split(batch_size):
        latents, states, mask, _ = cache.batch(rows, torch.Generator())
        x, states, mask = (given.to(student.device) for given in (cache.paths[rows][:, 0].float(), states, mask))
        metadata = _metadata(cache, rows, student)
        for k in range(student.distilled_steps):
            t = torch.full((len(rows),), TIMES * (1 - k / student.distilled_steps), device=x.device)
            x = x - student(x, t, states, mask, **metadata).sample[:, : x.shape[1]] / student.distilled_steps
        total += (x.cpu() - latents).square().mean().item() * len(rows)
        ends.append(latents)
    return total / len(cache) / torch.cat(ends).var().item()


def _metadata(cache: LatentCache, rows: torch.Tensor, model: Model) -> dict[str, torch.Tensor]:
    """The argument `metadata` of the model for some pairs, or nothing where they have none."""
    return {} if cache.metadata is None else {"metadata": cache.metadata[rows].to(model.device)}


def read_seconds(folder: Path) -> float:
    """Seconds that a training in `folder` took up to its last checkpoint, over all interruptions; 0 if it has none."""
    path = folder / CLOCK
    return json.loads(path.read_text())["seconds"] if path.is_file() else 0.0


def accelerator_for(config: TrainingConfig) -> Accelerator:
    """The processes and their share of a step's micro-batches."""
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())  # `Learner` sets the precision
    micro_batches, processes = config.gradient_accumulation, accelerator.num_processes
    if micro_batches % processes:
        raise TrainingError(
            f"{processes} processes cannot share the {micro_batches} micro-batches of a step evenly: make "
            f"gradient_accumulation a multiple of {processes} (a step sees batch_size x gradient_accumulation samples)"
        )
    accelerator.gradient_accumulation_steps = micro_batches // processes
    return accelerator


def _check_fit(model: Model, cache: LatentCache, config: TrainingConfig) -> None:
    if model.objective != config.objective:
        raise TrainingError(
            f"the model's objective is {model.objective}, the run's {config.objective}: make a new model with "
            f"objective={config.objective!r}, or train this one on its own"
        )
    tokens, width = model.null_caption.shape
    if tuple(cache.mean.shape[1:]) != model.latent_shape:
        raise TrainingError(f"the model takes latents {model.latent_shape}, not {tuple(cache.mean.shape[1:])}")
    if cache.states.shape[1] != width:
        raise TrainingError(f"the model takes text states of width {width}, not {cache.states.shape[1]}")
    longest = int(cache.offsets.diff().max())
    if longest > tokens:
        raise TrainingError(f"a text has {longest} tokens, the model's null caption {tokens}")
    is_adapter, has_metadata = isinstance(model, ControlledTransformer), cache.metadata is not None
    if (cache.condition is None) == is_adapter:
        raise TrainingError("an adapter needs a cache with conditions, a text-to-image model one without")
    untaught = is_adapter and not has_metadata  # the encoder is the frozen model's, which needs none
    if has_metadata != (model.metadata_sources is not None) and not untaught:
        raise TrainingError("a model with a metadata encoder needs a cache with metadata, another one without")
    if has_metadata:
        known, found = len(model.metadata_sources), cache.metadata[:, ATTRIBUTES.index("source")].nan_to_num(-1).max()
        if found >= known:
            raise TrainingError(
                f"the metadata has a source number {int(found)}, the model knows {known}: encode it again"
            )


def _save(run: Run, folder: Path, seconds: float) -> None:
    """Write a checkpoint, then the seconds that it took to get there."""
    run.save(folder)
    if run.accelerator.is_main_process:
        write_json({"seconds": round(seconds, 1)}, folder / CLOCK)


def _log(live: Live | None, entry: dict) -> None:
    if live is None:  # another process logs
        return
    live.step = entry["step"]
    for name in ("loss", "grad_norm", "learning_rate"):
        live.log_metric(name, entry[name])
    live.sync()
