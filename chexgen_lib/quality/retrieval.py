"""Image-text retrieval: does an encoder of images and texts find a sample's own prompt among all prompts?

As CLIP is used (Radford et al. 2021), with whatever encoder of that kind is given: one that was trained on radiographs
and reports says more than one of photographs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from chexgen_lib import images as im
from chexgen_lib.quality.embedders import WeightsMissing

BATCH = 32


class ImageTextEncoder:
    """An encoder in transformers' layout of CLIP or SigLIP, with its processor; an embedder that reads texts, too.

    Args:
        source: a folder, or the hub id of one that is in the hub's cache. Nothing is downloaded or executed.

    Raises:
        WeightsMissing: if there is none.
        ValueError: if it is no encoder of images and texts.
    """

    name = "image-text"

    def __init__(self, source: str | Path, device: str | torch.device = "cpu"):
        from transformers import AutoModel, AutoProcessor  # only where one is given

        try:
            self.net = AutoModel.from_pretrained(str(source), local_files_only=True, use_safetensors=True)
            self.processor = AutoProcessor.from_pretrained(str(source), local_files_only=True)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsMissing(
                f"no encoder of images and texts at {source}: give a folder with config.json, model.safetensors and "
                f"the files of its processor and tokenizer, or a hub id that was downloaded before ({reason})"
            ) from error
        if not (hasattr(self.net, "get_image_features") and hasattr(self.processor, "image_processor")):
            kind = type(self.net).__name__
            raise ValueError(f"{source} holds a {kind}, which does not encode both images and texts, as CLIP does")
        self.net, self.device = self.net.eval().to(device), device
        self.dim = self(np.zeros((1, 32, 32), np.float32)).shape[1]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of unit length [N, D] of images [N, H, W] in [0, 1]."""
        colour = im.to_uint8(im.check(images))[..., None].repeat(3, axis=3)

        def encode(batch: Sequence[np.ndarray]) -> Tensor:
            given = self.processor.image_processor(images=list(batch), return_tensors="pt").to(self.device)
            return self.net.get_image_features(pixel_values=given["pixel_values"])

        return _in_batches(encode, colour)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features of unit length [N, D]; what is longer than the encoder reads is cut, as in its training."""

        def encode(batch: Sequence[str]) -> Tensor:
            given = self.processor.tokenizer(list(batch), padding="max_length", truncation=True, return_tensors="pt")
            given = {k: v for k, v in given.items() if k in ("input_ids", "attention_mask")}
            return self.net.get_text_features(**{k: v.to(self.device) for k, v in given.items()})

        return _in_batches(encode, texts)


@torch.inference_mode()
def _in_batches(encode, inputs: Sequence) -> np.ndarray:
    parts = []
    for start in range(0, len(inputs), BATCH):
        found = encode(inputs[start : start + BATCH])
        found = getattr(found, "pooler_output", found)  # transformers 5 returns more than the features
        parts.append(normalize(found.float(), dim=-1).cpu())
    return torch.cat(parts).numpy()


def ranks(images: np.ndarray, texts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How many other texts are more like an image than its own; 0 where its own is first, a tie counts half.

    Args:
        images: [N, S, D], of unit length.
        texts: distinct ones, [T, D].
        own: row of the text that each of N was asked by.

    Raises:
        ValueError: for features that are not finite, which would be as near to every text as to their own.
    """
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ValueError("the features hold values that are not finite; check the images and the encoder")
    alike = images @ texts.T  # [N, S, T]
    mine = np.take_along_axis(alike, own[:, None, None], axis=2)
    ties = (alike == mine).sum(2) - 1
    return (alike > mine).sum(2) + ties / 2
