"""Embedders: images in, one feature vector per image out, for Frechet distances, t-SNE and nearest
neighbours.

The paper uses CLIP ViT-L/14 (768 features) and torchxrayvision's DenseNet121 (Methods, "Quality Assessment";
it says 512 features, the released network has 1024). Both need weights that this repository does not ship.
Where there are none, the run's own classifier and radiomics (texture statistics) take their place, and
distances carry that name.
"""

import pickle
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from chexgen_lib import images as im
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.records import FINDINGS
from chexgen_lib.stored_images import StoredImages, float_blocks


class Embedder(Protocol):
    """Anything with a name, a number of features and a call: [N, H, W] in [0, 1] -> [N, dim] float32."""

    name: str
    dim: int

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class WeightsMissing(FileNotFoundError):
    """Pretrained weights are not on this disk; the message says which, from where, and what works without."""


def _batched(run: Callable[[np.ndarray], torch.Tensor], images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    images = im.check(images)
    if images.ndim != 3:
        raise im.ImageError(f"an embedder needs images [N, H, W], got shape {images.shape}")
    with torch.inference_mode():
        parts = [run(images[i : i + batch_size]).float().cpu() for i in range(0, len(images), batch_size)]
    return torch.cat(parts).numpy()


# Without a download


class ClassifierEmbedder:
    """Pooled features of the run's own classifier, trained on real images of the train split."""

    name = "classifier"

    def __init__(self, classifier: Classifier):
        self.classifier, self.dim = classifier, classifier.dim

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.classifier.features(im.check(images))


class RadiomicsEmbedder:
    """First-order, co-occurrence (GLCM) and run-length (GLRLM) statistics of the whole image.

    Features as pyradiomics defines them, on the image and (first order) on its four Haar sub-bands, each
    standardised by its mean and sd over `reference` real images, as in the Frechet radiomics distance (Konz
    et al. 2024, arXiv 2412.01496). Deterministic, no learned weights; no organ mask, so the chest wall counts
    too.
    """

    name = "radiomics"
    LEVELS = 32  # fixed bins over [0, 1], so that a shift in brightness stays visible
    GLCM = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")

    def __init__(self, reference: np.ndarray | StoredImages):
        raw = np.concatenate([*map(self._raw, float_blocks(reference))]) if len(reference) else reference
        if len(raw) < 2:
            raise ValueError("radiomics features are standardised by real images: needs at least 2")
        self.dim = raw.shape[1]
        self.mean, sd = raw.mean(0), raw.std(0)
        self.sd = np.where(sd > 1e-6 * np.abs(self.mean) + 1e-9, sd, 1)  # a constant feature stays 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return ((self._raw(images) - self.mean) / self.sd).astype(np.float32)

    def _raw(self, images: np.ndarray) -> np.ndarray:
        images = im.check(images)
        rows = tqdm(images, desc=self.name, unit="image", leave=False)
        texture = np.stack([np.concatenate([self._glcm(q), self._runs(q)]) for q in map(self._quantise, rows)])
        return np.concatenate([*(first_order(band) for band in (images, *haar(images))), texture], axis=1)

    def _quantise(self, image: np.ndarray) -> np.ndarray:
        return np.minimum((image * self.LEVELS).astype(np.uint8), self.LEVELS - 1)

    def _glcm(self, q: np.ndarray) -> np.ndarray:
        from skimage.feature import graycomatrix, graycoprops  # only where radiomics are used: it loads slowly

        angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
        matrix = graycomatrix(q, (1, 4), angles, self.LEVELS, symmetric=True, normed=True)
        return np.stack([graycoprops(matrix, name).mean(1) for name in self.GLCM]).ravel()  # 6 x 2 distances

    def _runs(self, q: np.ndarray) -> np.ndarray:
        """Short- and long-run emphasis, run percentage, grey-level and run-length non-uniformity, along both axes."""
        per_direction = []
        for lines in (q, q.T):
            ends = np.ones(lines.shape, bool)
            ends[:, :-1] = lines[:, 1:] != lines[:, :-1]  # a run ends at a change and at the border
            at = np.flatnonzero(ends)
            length, level = np.diff(at, prepend=-1), lines.ravel()[at]
            n, squares = len(length), [(np.bincount(v) ** 2.0).sum() for v in (level, length)]
            per_direction.append(
                [
                    (1.0 / length**2).mean(),
                    (length**2.0).mean(),
                    n / q.size,
                    squares[0] / n**2,
                    squares[1] / n**2,
                ]
            )
        return np.mean(per_direction, axis=0)


def first_order(x: np.ndarray) -> np.ndarray:
    """[N, H, W] -> [N, 10]: mean, sd, skewness, kurtosis, five percentiles, root mean square."""
    flat = np.sort(x.reshape(len(x), -1), axis=1)
    at = np.rint(np.array([0.01, 0.1, 0.5, 0.9, 0.99]) * (flat.shape[1] - 1)).astype(int)
    mean = flat.mean(1, keepdims=True, dtype=np.float64)
    z = flat - mean  # [N, H * W] float64
    square = z * z
    sd = np.sqrt(square.mean(1))
    skewness = (square * z).mean(1) / np.maximum(sd, 1e-9) ** 3
    kurtosis = (square * square).mean(1) / np.maximum(sd, 1e-9) ** 4
    rms = np.sqrt(sd**2 + mean[:, 0] ** 2)
    return np.column_stack([mean[:, 0], sd, skewness, kurtosis, flat[:, at], rms])


def haar(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Four sub-bands of a one-level Haar transform: [N, H, W] -> 4 x [N, H/2, W/2] (an odd last line is dropped)."""
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    a, b, c, d = x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2], x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


# With downloaded weights


class ClipEmbedder:
    """CLIP ViT-L/14 image embeddings (768), the paper's general-purpose features. Nothing is downloaded here."""

    name, dim, REPO = "CLIP", 768, "openai/clip-vit-large-patch14"

    def __init__(self, weights: str | Path | None = None, device: str = "cpu"):
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection  # only where CLIP is used

        source = str(weights or self.REPO)
        try:
            self.processor = CLIPImageProcessor.from_pretrained(source, local_files_only=True)
            self.net = CLIPVisionModelWithProjection.from_pretrained(
                source, local_files_only=True, use_safetensors=True
            )
        except OSError as error:
            raise WeightsMissing(
                f"CLIP weights are not at {source}: run `chexgen weights fetch clip-vit-l14`, or use embedders "
                "'classifier,radiomics'"
            ) from error
        self.net, self.device = self.net.eval().to(device), device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        def run(x: np.ndarray) -> torch.Tensor:
            colour = list(im.to_uint8(x)[..., None].repeat(3, axis=3))
            pixels = self.processor(images=colour, return_tensors="pt")["pixel_values"]
            return self.net(pixel_values=pixels.to(self.device)).image_embeds

        return _batched(run, images)


class XrvEmbedder:
    """torchxrayvision DenseNet121 (224 px): pooled features, and `predict` for factual correctness.

    The paper takes features from densenet121-res224-all and predictions from the MIMIC-CXR weights. Its text speaks of
    14 pathologies; those weights name 11 of CheXpert's 14 ("No Finding", "Pleural Other" and "Support Devices" are not
    among them), so `predict` returns NaN there and no number hides the difference.
    """

    dim = 1024

    def __init__(self, variant: str = "all", weights_dir: str | Path | None = None, device: str = "cpu"):
        import torchxrayvision as xrv  # only where its networks are used: it loads slowly

        known = xrv.models.model_urls
        if variant not in known or not known[variant]["weights_url"].endswith("best.pt"):
            raise ValueError(f"unknown torchxrayvision variant {variant!r}; use 'all', 'mimic_ch' or 'mimic_nb'")
        self.name, self.device = f"XRV-{variant}", device
        url = known[variant]["weights_url"]
        path = Path(weights_dir or xrv.utils.get_cache_dir()) / url.rsplit("/", 1)[1]
        if not path.is_file():
            raise WeightsMissing(
                f"{path} is missing: run `chexgen weights fetch --profile gpu` (it is at {url}), or use embedders "
                "'classifier,radiomics'"
            )
        self.net = xrv.models.DenseNet(num_classes=18)
        self.net.load_state_dict(xrv_state(path))
        self.net.op_threshs = torch.tensor(known[variant]["op_threshs"])
        self.net.eval().to(device)
        self.targets = known[variant]["labels"]

    def _input(self, x: np.ndarray) -> torch.Tensor:
        return im.to_xrv(im.resize(x, 224)).to(self.device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return _batched(lambda x: self.net.features2(self._input(x)), images)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Calibrated scores [N, 14] in FINDINGS' order; NaN for findings that the weights do not know."""
        scores = _batched(lambda x: self.net(self._input(x)), images)
        columns = [
            scores[:, self.targets.index(f)] if f in self.targets else np.full(len(scores), np.nan) for f in FINDINGS
        ]
        return np.stack(columns, axis=1).astype(np.float32)


def make(
    names: Sequence[str],
    *,
    classifier: Classifier | None = None,
    reference: np.ndarray | StoredImages | None = None,
    weights: dict[str, str | Path] | None = None,
    device: str = "cpu",
) -> list[Embedder]:
    """Embedders by name: "classifier" (needs `classifier`), "radiomics" (needs `reference`, real images [N,
    H, W]), "clip" and "xrv" (weights already on this disk, or in the folder `weights[name]`)."""
    weights = weights or {}
    makers = {
        "classifier": lambda: ClassifierEmbedder(classifier),
        "radiomics": lambda: RadiomicsEmbedder(reference),
        "clip": lambda: ClipEmbedder(weights.get("clip"), device),
        "xrv": lambda: XrvEmbedder("all", weights.get("xrv"), device),
    }
    if unknown := [name for name in names if name not in makers]:
        raise ValueError(f"unknown embedders {unknown}; use some of {list(makers)}")
    missing = {"classifier": classifier is None, "radiomics": reference is None}
    if short := [name for name in names if missing.get(name)]:
        raise ValueError(f"embedders {short} need a classifier or reference images")
    return [makers[name]() for name in names]


def xrv_state(path: Path) -> dict[str, torch.Tensor]:
    """State dict of a torchxrayvision release, without executing what is in the file.

    The releases are whole networks, pickled in torch's format of before 2020, which `weights_only` refuses. Here their
    layers become inert objects, of which only parameters and buffers are taken; any other class is refused.

    Raises:
        ValueError: if the file is cut off, holds other classes, or holds no network.
    """
    restricted = ModuleType("restricted_pickle")  # what torch.load calls of a pickle module
    restricted.Unpickler = _Unpickler
    restricted.load = lambda file, **options: _Unpickler(file, **options).load()
    try:
        if tarfile.is_tarfile(path):
            raise pickle.UnpicklingError("it is an archive")
        with warnings.catch_warnings():  # torch compares the layers' source code with today's
            warnings.simplefilter("ignore")
            network = torch.load(path, map_location="cpu", pickle_module=restricted, weights_only=False)
        state = dict(_tensors(network))
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, TypeError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is cut off or no release of torchxrayvision; weights only are read: {reason}"
        ) from error
    return {name: tensor for name, tensor in state.items() if name != "op_threshs"}  # the caller sets these


class _Part:
    """What stands for a layer of a pickled network: it keeps the layer's attributes and does nothing."""

    dump_patches = False  # torch asks for it

    def __init__(self, *arguments):
        pass


class _Unpickler(pickle.Unpickler):
    """An unpickler that builds tensors and containers, `_Part` for any layer, and nothing else."""

    BUILT = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")}
    BUILT |= {("collections", "OrderedDict"), ("builtins", "set"), ("__builtin__", "set")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.BUILT:
            return super().find_class(module, name)
        if module.split(".")[0] in ("torchxrayvision", "numpy") or module.startswith("torch.nn."):
            return _Part
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _tensors(part: _Part, above: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers below a pickled layer, by their names in its state dict."""
    for name, value in (*part._parameters.items(), *part._buffers.items()):
        if isinstance(value, torch.Tensor):
            yield above + name, value.detach()
    for name, inner in part._modules.items():
        if inner is not None:
            yield from _tensors(inner, f"{above}{name}.")
