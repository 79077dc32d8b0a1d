"""Texts become states and masks; texts that cannot are refused by row."""

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from chexgen_lib.models.text import TextError, cache_texts, count_tokens, encode_texts, load_text_encoder


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder("minilm")


def test_padding_changes_no_state(minilm):
    texts = ["No acute disease.", "Moderate right pleural effusion with adjacent atelectasis."]
    states, mask = encode_texts(*minilm, texts)
    alone, _ = encode_texts(*minilm, texts[:1])
    assert states.shape[2] == 384 and mask.sum(1).tolist() == count_tokens(minilm[0], texts)
    torch.testing.assert_close(states[0, mask[0]], alone[0], atol=1e-4, rtol=1e-4)


def test_tokens_are_counted_in_the_order_of_many_texts(minilm):
    short, long = count_tokens(minilm[0], ["Clear.", "No acute disease."])
    assert short < long == count_tokens(minilm[0], ["Clear."] * 5000 + ["No acute disease."])[5000]


def test_cache_holds_every_text_without_padding(minilm):
    texts = ["Cardiomegaly.", "No acute disease in the chest.", "Left effusion."]
    cache = cache_texts(*minilm, texts, batch_size=2)
    assert cache["offsets"].diff().tolist() == count_tokens(minilm[0], texts)
    expected, _ = encode_texts(*minilm, texts[1:2])
    torch.testing.assert_close(
        cache["states"][cache["offsets"][1] : cache["offsets"][2]].float(), expected[0], atol=2e-3, rtol=2e-3
    )


@pytest.mark.parametrize("bad", ["", "  ", None, 3.5])
def test_empty_or_not_text(minilm, bad):
    with pytest.raises(TextError, match="prompt 1 is empty or not text"):
        encode_texts(*minilm, ["fine", bad])


@pytest.mark.parametrize("text", ["両側胸水あり。", "Плевральный выпот справа", "انصباب جنبي PA"])
def test_a_text_in_another_script_is_named(minilm, text):
    with pytest.raises(TextError, match=f"prompt 1 is not in English .'{text}'.: write it in English"):
        encode_texts(*minilm, ["Clear.", text])


@pytest.mark.parametrize("text", ["12 mm, 3.", "Kerley B (Röntgen: σ ≈ 2).", "Épanchement pleural gauche."])
def test_signs_and_accents_are_no_other_script(minilm, text):
    states, _ = encode_texts(*minilm, [text])
    assert states.isfinite().all()


def test_long_text_is_refused_or_truncated(minilm):
    long = "opacity " * 150
    with pytest.raises(TextError, match="prompt 0 has 452 tokens, the limit is 120"):
        encode_texts(*minilm, [long])
    assert encode_texts(*minilm, [long], truncate=True)[0].shape[1] == 120


def test_unknown_encoder(tmp_path):
    with pytest.raises(TextError, match="no text encoder at"):
        load_text_encoder(str(tmp_path / "nothing"))


def test_a_t5_folder_loads_its_encoder(minilm, tmp_path):
    """The paper's encoder family, in miniature: T5's encoder with any tokenizer of the folder."""
    folder = tmp_path / "t5-tiny"
    config = T5Config(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, vocab_size=len(minilm[0]))
    T5EncoderModel(config).save_pretrained(folder)
    minilm[0].save_pretrained(folder)
    states, mask = encode_texts(*load_text_encoder(str(folder)), ["Small nodule."])
    assert states.shape[2] == 16 and mask.all()
