"""Names of the training sets of Figure 5d (`pools.balancing`); light, for figures that only read tables."""

REAL = "imbalanced"
SYNTHETIC = "balanced, synthetic"
WEIGHTED = "re-weighted"
REPEATED = "real repeated"
UNBALANCED = "as many, unbalanced"
