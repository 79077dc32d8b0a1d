"""The U-Net keeps the transformer's contracts, reads its text, and reads at most 77 tokens of it."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace, Sequence, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from chexgen_lib.models.baseline import MAX_TOKENS, SIZES, BaselineUNet, truncate
from chexgen_lib.models.text import count_tokens, load_text_encoder
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import TrainingConfig, noise_error, train


def unet(sample_size=8) -> BaselineUNet:
    torch.manual_seed(0)
    return BaselineUNet.of_size("ci", (4, sample_size, sample_size), text_dim=16).eval()


def inputs(size=8):
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(24) < torch.tensor([24, 9, 1])[:, None]
    x, y = torch.randn(3, 4, size, size, generator=g), torch.randn(3, 24, 16, generator=g)
    return x, torch.tensor([999, 500, 0]), y, mask


@pytest.mark.parametrize("size", [8, 16])
def test_predicts_noise_of_the_latents_shape(size):
    with torch.no_grad():
        out = unet(size)(*inputs(size)).sample
    assert out.shape == (3, 4, size, size) and out.isfinite().all()


def test_sizes():
    with torch.device("meta"):
        counts = {size: BaselineUNet.of_size(size, (4, 8, 8), text_dim=384).num_parameters() for size in SIZES}
        paper = BaselineUNet.of_size("paper", (4, 64, 64), text_dim=768)
    assert counts["ci"] < 5e5 and 3e6 < counts["laptop"] < 6e6
    assert paper.num_parameters() == 859_520_964  # Stable Diffusion v1


def test_batch_equals_singles():
    model, batch = unet(), inputs()
    with torch.no_grad():
        singles = torch.cat([model(*(a[i : i + 1] for a in batch)).sample for i in range(3)])
        torch.testing.assert_close(model(*batch).sample, singles, atol=1e-5, rtol=1e-5)
        assert torch.equal(model(*batch, return_dict=False)[0], model(*batch).sample)


def test_padding_has_no_effect_and_every_input_has():
    model, (x, t, y, mask) = unet(), inputs()
    with torch.no_grad():
        out = model(x, t, y, mask).sample
        padded = torch.where(mask[..., None], y, 1e3)
        torch.testing.assert_close(model(x, t, padded, mask).sample, out)
        for changed in [(x + 0.1, t, y, mask), (x, t.flip(0), y, mask), (x, t, y + 0.1, mask), (x, t, y, None)]:
            assert not torch.allclose(model(*changed).sample, out)


def test_the_null_caption_switches_the_text_off():
    model, (x, t, y, mask) = unet(), inputs()
    null = model.null_caption
    assert null.shape == (MAX_TOKENS, 16) and not null.any()
    with torch.no_grad():
        free = model(x, t, null[:24].expand_as(y), mask).sample
        torch.testing.assert_close(model(x, t, null[:5].expand(3, 5, 16)).sample, free)  # however long it is
        assert not torch.allclose(model(x, t, y, mask).sample, free)


def test_saves_and_loads_as_itself_and_as_diffusers_own(tmp_path):
    model, (x, t, y, mask) = unet(), inputs()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    loaded, plain = (c.from_pretrained(tmp_path).eval() for c in (BaselineUNet, UNet2DConditionModel))
    with torch.no_grad():
        expected = model(x, t, y, mask).sample
        torch.testing.assert_close(loaded(x, t, y, mask).sample, expected)
        torch.testing.assert_close(plain(x, t, y, encoder_attention_mask=mask).sample, expected)


def test_learns_what_a_text_asks_for(tmp_path):
    """Two texts, two images: after a few steps the right text explains the noise better than the wrong one."""
    g = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 4, 4, 4, generator=g).half(), torch.randn(2, 3, 16, generator=g).half()
    kind = torch.arange(32) % 2
    pairs, swapped = (
        LatentCache(images[kind], torch.full((32, 4, 4, 4), 0.1).half(), texts[k].flatten(0, 1), torch.arange(33) * 3)
        for k in (kind, 1 - kind)
    )
    model = unet(4)
    config = TrainingConfig(steps=60, batch_size=16, learning_rate=1e-2, ema_decay=0.9, precision="fp32")
    train(model, pairs, config, tmp_path)
    assert noise_error(model, swapped) > 1.1 * noise_error(model, pairs)


def test_clear_errors():
    x, t, y, mask = inputs()
    with pytest.raises(ValueError, match="unknown model size 'huge'"):
        BaselineUNet.of_size("huge", (4, 8, 8), 16)
    with pytest.raises(ValueError, match=r"latents have shape \(3, 4, 16, 16\), not \[B, \(4, 8, 8\)\]"):
        unet()(inputs(16)[0], t, y, mask)
    with pytest.raises(ValueError, match="the text has 96 tokens, the limit is 77"):
        unet()(x, t, y.repeat(1, 4, 1), mask.repeat(1, 4))


def test_long_texts_are_cut_as_the_tokenizer_would_cut_them():
    tokenizer, _ = load_text_encoder("minilm")
    long = "Bibasilar cardiomegaly-hyperinflation, 3.5 cm; " * 12
    texts = ["Clear.", long, "heart " * 75, "heart " * 76]
    cut, n = truncate(tokenizer, texts)
    assert count_tokens(tokenizer, texts)[2:] == [77, 78] and n == 2
    assert [a == b for a, b in zip(cut, texts, strict=True)] == [True, False, True, False]
    assert count_tokens(tokenizer, cut)[1:] == [77, 77, 77]
    assert tokenizer(cut)["input_ids"] == tokenizer(texts, truncation=True, max_length=77)["input_ids"]


def test_a_text_that_is_cut_at_a_space_fits_as_well():
    """T5's token of a space spans the letter that follows: a text cut after it has one token more."""
    tokens = Tokenizer(Unigram([("<unk>", 0.0), ("\u2581", -1.0), ("x", -1.0)], unk_id=0, byte_fallback=False))
    tokens.pre_tokenizer = Sequence([WhitespaceSplit(), Metaspace(prepend_scheme="always")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>")
    text = " ".join(["x"] * 60)  # 2 tokens each: the 77th is a space
    (cut,), n = truncate(tokenizer, [text])
    assert n == 1 and count_tokens(tokenizer, [cut]) == [MAX_TOKENS - 1] and text.startswith(cut)
