"""Unseen patients with seen prompts: which texts of held-out patients stand verbatim among the training texts.

Radiologists repeat themselves ("No acute cardiopulmonary abnormality."), so that a split by patients does not split
texts. What is claimed of unseen prompts is therefore counted here, and measured again on the texts that are new.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

FEWEST = 8  # prompts with new texts, for a measure of theirs
SEEN, NEW = "stands in training", "stands nowhere in training"


def normalised(text: str) -> str:
    """A text without case, punctuation and spacing: texts that are equal in it say the same in the same words.

    >>> normalised("1. No acute  abnormality.") == normalised("1) no acute abnormality")
    True
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def seen(texts: Sequence[str], training: Iterable[str | None]) -> np.ndarray:
    """Whether each text stands, `normalised`, among the training texts: bool [N]."""
    known = {normalised(text) for text in training if text is not None}
    return np.array([normalised(text) in known for text in texts], bool)


def counts(is_seen: np.ndarray) -> pl.DataFrame:
    """How many prompts have a verbatim twin among the training texts, and how many have none: text, prompts, share."""
    n = [int(is_seen.sum()), int((~is_seen).sum())]
    return pl.DataFrame({"text": [SEEN, NEW], "prompts": n, "share": [k / len(is_seen) for k in n]})
