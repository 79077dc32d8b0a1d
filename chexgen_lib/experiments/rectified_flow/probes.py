"""Probes: regressions, trained on real images, that predict a patient's attributes from a radiograph.

What the probes cannot detect on real images they cannot detect on samples, and a generator may exaggerate what is
requested: a sample that is easier for a probe than a real image is not a better image.
"""

import numpy as np
from skimage.feature import hog
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel

from chexgen_lib import images as im


class Probes:
    """Kernel ridge regression of each attribute on the pixels and the edges of a small image.

    Pixels and histograms of oriented gradients (Dalal & Triggs 2005), each as whitened principal components. On a few
    thousand images of 64 px this predicts age, sex, view and findings better than a small network, in seconds, and is a
    function of the data alone.

    Args:
        images: [N, H, W] in [0, 1] or uint8.
        values: [N, A] of `requests.truth`, NaN unknown.
    """

    def __init__(self, images: np.ndarray, values: np.ndarray, components: int = 256, ridge: float = 0.1):
        self.parts = []
        for part in _representations(images):
            kept = min(components, part.shape[1], len(part) // 2)
            self.parts.append(PCA(kept, whiten=True, svd_solver="randomized", random_state=0).fit(part))
        self.features = self._features(images)
        self.gamma = 0.5 / self.features.shape[1]
        kernel = rbf_kernel(self.features, gamma=self.gamma)
        self.mean = np.nanmean(values, axis=0)  # [A]
        self.weights = np.zeros(values.shape)  # [N, A]
        known = ~np.isnan(values)
        for pattern in np.unique(known, axis=1).T:  # attributes known for the same images share a factorisation
            same = (known == pattern[:, None]).all(0)
            centred = values[np.ix_(pattern, same)] - self.mean[same]
            fitted = KernelRidge(alpha=ridge, kernel="precomputed").fit(kernel[np.ix_(pattern, pattern)], centred)
            self.weights[np.ix_(pattern, same)] = fitted.dual_coef_

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Predictions [N, A]: age in years, else about 0 to 1."""
        return rbf_kernel(self._features(images), self.features, gamma=self.gamma) @ self.weights + self.mean

    def _features(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [pca.transform(x) for pca, x in zip(self.parts, _representations(images), strict=True)], axis=1
        )


def _representations(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, H * W] and oriented gradients [N, D]."""
    images = im.check(im.from_uint8(images) if images.dtype == np.uint8 else images)
    edges = [hog(image, orientations=6, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in images]
    return images.reshape(len(images), -1), np.stack(edges)
