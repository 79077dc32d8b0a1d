"""Probes read unseen images, and learn nothing from unknown values."""

import numpy as np

from chexgen_lib.experiments.rectified_flow.probes import Probes


def planted(values: np.ndarray, seed: int) -> np.ndarray:
    """Images [N, 32, 32] in which a bright square shows the second value and brightness the first."""
    rng = np.random.default_rng(seed)
    images = (
        0.3 + 0.005 * np.nan_to_num(values[:, 0])[:, None, None] + 0.05 * rng.standard_normal((len(values), 32, 32))
    )
    images[:, 4:12, 20:28] += 0.2 * np.nan_to_num(values[:, 1])[:, None, None]
    return np.clip(images, 0, 1).astype(np.float32)


def test_probes_read_unseen_images_and_skip_unknown_values():
    rng = np.random.default_rng(0)
    values = np.stack([rng.uniform(20, 80, 240), rng.integers(0, 2, 240)], axis=1)
    known = values[:160].copy()
    known[::3, 0] = np.nan
    probes = Probes(planted(values[:160], 1), known, components=8)
    read = probes(planted(values[160:], 2))
    assert np.corrcoef(read[:, 0], values[160:, 0])[0, 1] > 0.9
    assert np.abs(read[:, 0] - values[160:, 0]).mean() < 8
    assert np.corrcoef(read[:, 1], values[160:, 1])[0, 1] > 0.8
    whole = Probes(planted(values[:160], 1), values[:160], components=8)
    np.testing.assert_allclose(whole(planted(values[160:], 2))[:, 1], read[:, 1], atol=1e-6)  # column by column
