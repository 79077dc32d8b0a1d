"""Films whose attributes are bright squares: pairs of the benchmark without rendering."""

import numpy as np

from chexgen_lib.experiments.counterfactuals.films import Films, values
from chexgen_lib.phantom.counterfactual_benchmark import benchmark

SIZE, CELL, COLUMNS = 64, 12, 5


def drawn_films(n, seed=0):
    """The first `n` pairs of a seed, an attribute a square of 12 px."""
    pairs = benchmark(n, seed)
    noise = np.random.default_rng(seed).integers(0, 20, (n, SIZE, SIZE))  # the same in both films of a pair
    films = [draw([pair.record for pair in pairs], noise), draw([pair.target for pair in pairs], noise)]
    return Films(pairs, *films)


def draw(records, noise):
    films = noise.copy()
    for film, known in zip(films, values(records) / np.array([90.0] + [1.0] * 17), strict=True):
        for k, value in enumerate(known):
            top, left = CELL * (k // COLUMNS), CELL * (k % COLUMNS)
            film[top : top + CELL, left : left + CELL] += np.rint(200 * value).astype(int)
    return films.astype(np.uint8)


class Known:
    """Stands for `recognition.RecognisedFilms`: a film is the patient's if most of its noise is."""

    def __init__(self, films):
        self.films = films

    def recognised(self, images):
        return (np.median(np.abs(images.astype(int) - self.films.before), axis=(1, 2)) < 2).astype(float)

    def distance(self, images):
        return np.abs(images.astype(int) - self.films.after).mean((1, 2)) / 255
