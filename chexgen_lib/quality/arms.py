"""Names of the arms of Figure 2: the generator and what bounds it; light, for figures that only read tables."""

GENERATOR = "this run"
FLOOR = "real vs real"
IGNORES = "ignores its prompt"
NOISE = "Gaussian pixels"
REAL = "real images"

DIFFERENCE = ("difference", "difference_low", "difference_high", "p", "detectable")  # of an arm from the generator
