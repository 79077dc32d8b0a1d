"""Can a classifier tell samples from radiographs? (Lopez-Paz & Oquab 2017.)

Distances of distributions say how far samples are from radiographs; this says how often the difference shows.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
PENALTY = 0.01  # inverse strength (C): features are as many as images


def scores(real: np.ndarray, samples: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """How synthetic each image looks [M + N * S], the radiographs first, to classifiers that saw none of its patient.

    Args:
        real: features [M, D] of radiographs.
        samples: features [N, S, D].
        patients: of the radiographs, then of the samples' prompts, [M + N].

    Raises:
        ValueError: for fewer than `FOLDS` patients of either kind.
    """
    features = np.concatenate([real, samples.reshape(-1, samples.shape[-1])])
    synthetic = np.arange(len(features)) >= len(real)
    of = np.concatenate([patients[: len(real)], np.repeat(patients[len(real) :], samples.shape[1])])
    if min(len(np.unique(of[kind])) for kind in (synthetic, ~synthetic)) < FOLDS:
        raise ValueError(f"fewer than {FOLDS} patients to hold out in turn")
    found = np.empty(len(features))
    for fitted, held_out in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, synthetic, of):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000))
        found[held_out] = model.fit(features[fitted], synthetic[fitted]).decision_function(features[held_out])
    return found
