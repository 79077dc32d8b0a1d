"""What the experiments' networks share: how images enter them, and the loop that trains them."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from chexgen_lib import images as im


def device_for(workers: int) -> str:
    """Where trainings run that `workers` processes do side by side: several would contend for a GPU, one has it."""
    return "cuda" if torch.cuda.is_available() and not workers else "cpu"


def network_input(images: np.ndarray, size: int, device: str) -> Tensor:
    """[N, H, W], float in [0, 1] or uint8 -> [N, 1, size, size] in [-1, 1]."""
    x = im.from_uint8(images) if images.dtype == np.uint8 else images
    return (im.to_xrv(im.resize(x, size)) / 1024).to(device)


def fit(
    net: nn.Module,
    loss_of: Callable[[], Tensor],
    *,
    steps: int,
    learning_rate: float,
    name: str,
    check: Callable[[], float] | None = None,
    metric: str = "",
    lower_is_better: bool = False,
    check_every: int = 50,
) -> list[dict]:
    """Train `net` in place by AdamW with a one-cycle learning rate, and leave the best of its weights in it.

    Args:
        loss_of: the loss of the next batch.
        check: measures the net on the validation split, every `check_every` steps and after the last; of equals, such
            as 0 at the start, the one trained longest is kept. None: the last weights are.
        metric: what `check` measures, in the history.
        name: of the progress bar.

    Returns:
        per check: step, mean loss since the last one, and the metric.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    best, best_weights, losses, history = -np.inf, None, [], []
    with tqdm(range(1, steps + 1), desc=name, unit="step") as bar:
        for step in bar:
            net.train()
            loss = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.4f}")
            if check is not None and (step % check_every == 0 or step == steps):
                value = check()
                history.append({"step": step, "loss": float(np.mean(losses)), metric: value})
                losses = []
                if (-value if lower_is_better else value) >= best:
                    best, best_weights = -value if lower_is_better else value, copy.deepcopy(net.state_dict())
    if best_weights is not None:
        net.load_state_dict(best_weights)
    return history
