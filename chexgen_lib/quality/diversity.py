"""Diversity: structural similarity between images of one prompt (paper, Figure 2a; lower = more diverse).

The paper's main text says MS-SSIM and its Methods say SSIM, over all pairs of four seeds per prompt; both are
measured here, under their own names. Window: Gaussian, 11 pixels, sigma 1.5 (Wang et al. 2003). MS-SSIM
halves the image at every scale, and the window must fit the smallest: five scales need 176 pixels. Smaller
images use as many scales as fit (4 at 128 px, 3 at 64 px) with the first weights rescaled to sum to 1, so
values at different resolutions are not comparable, and none of them with the paper's at 512 px.
"""

from itertools import combinations

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from chexgen_lib import images as im

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for images in [0, 1]
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003


def scales(size: int) -> int:
    """How many of the five scales fit images of `size` pixels."""
    fit = [m for m in range(1, len(BETAS) + 1) if size // 2 ** (m - 1) >= WINDOW]
    if not fit:
        raise ValueError(f"structural similarity needs images of at least {WINDOW} pixels, got {size}")
    return fit[-1]


def pairwise_similarity(samples: np.ndarray, *, batch_size: int = 16) -> dict[str, np.ndarray]:
    """Mean similarity over all pairs of the samples of each prompt (paper, Methods).

    samples: [P, S, H, W] in [0, 1], S >= 2. Returns {"MS-SSIM": [P], "SSIM": [P]}, float64. Windows lie
    wholly inside the image, as in Wang et al. and scikit-image (tested equal; torchmetrics reflects part of
    the border). Windowed means and variances are computed once per image and shared by all its pairs.
    """
    samples = np.asarray(samples)
    if samples.ndim != 4 or samples.shape[1] < 2:
        raise ValueError(f"needs samples [P, S, H, W] with at least 2 per prompt, got shape {samples.shape}")
    im.check(samples.reshape(-1, *samples.shape[2:]), "samples")
    starts = tqdm(range(0, len(samples), batch_size), desc="MS-SSIM", unit="batch", leave=False)
    parts = [_similarities(torch.from_numpy(samples[i : i + batch_size])) for i in starts]
    return {name: torch.cat([p[name] for p in parts]).double().numpy() for name in ("MS-SSIM", "SSIM")}


def pairs_of_prompts(n: int, rounds: int, seed: int) -> np.ndarray:
    """Pairs of different ones of `n` prompts, in random order [K, 2]; each prompt is in two pairs of each round.

    As many rounds as there are other prompts, at most. What is measured on a pair counts in a resample as often as
    both of its prompts do, multiplied.
    """
    order = np.random.default_rng(seed).permutation(n)
    others = [np.roll(order, -k) for k in range(1, 1 + min(rounds, n - 1))]
    return np.stack([np.tile(order, len(others)), np.concatenate(others)], axis=1)


def _similarities(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """[P, S, H, W] -> per prompt, averaged over pairs."""
    i, j = torch.tensor(list(combinations(range(x.shape[1]), 2))).T
    n_scales = scales(min(x.shape[2:]))
    betas = torch.tensor(BETAS[:n_scales])
    terms = []  # one [P, pairs] per scale: contrast and structure, at the last scale also luminance
    for m in range(n_scales):
        mean = window_mean(x)
        var = window_mean(x * x) - mean * mean
        cov = window_mean(x[:, i] * x[:, j]) - mean[:, i] * mean[:, j]
        luminance = (2 * mean[:, i] * mean[:, j] + C1) / (mean[:, i] ** 2 + mean[:, j] ** 2 + C1)
        structure = (2 * cov + C2) / (var[:, i] + var[:, j] + C2)
        if m == 0:
            ssim = (luminance * structure).mean((-1, -2))
        terms.append((luminance * structure if m == n_scales - 1 else structure).mean((-1, -2)))
        x = F.avg_pool2d(x, 2)
    powers = torch.stack(terms, -1).relu() ** (betas / betas.sum())  # [P, pairs, scales]
    return {"MS-SSIM": powers.prod(-1).mean(-1), "SSIM": ssim.mean(-1)}


def window_mean(x: torch.Tensor) -> torch.Tensor:
    """Gaussian-weighted mean of each whole window: [..., H, W] -> [..., H - 10, W - 10], as two matrix products."""
    rows, columns = (_band(size).to(x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def _band(size: int) -> torch.Tensor:
    """[size - 10, size]: row k holds the window that starts at k (its product is 15 x faster than conv2d)."""
    window = torch.exp(-((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    band = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64)
    for k in range(len(band)):
        band[k, k : k + WINDOW] = window / window.sum()
    return band
