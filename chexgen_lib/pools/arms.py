"""Names of the training sets of Figure 5d (`pools.balancing`); light, for figures that only read tables."""

REAL = "imbalanced"
SYNTHETIC = "balanced, synthetic"
WEIGHTED = "re-weighted"
REPEATED = "real repeated"
UNBALANCED = "as many, unbalanced"


def balanced(generator: str) -> str:
    """As `SYNTHETIC`, with another generator's images: "balanced, RoentGen"."""
    return f"balanced, {generator}"
