"""The sentences written by hand say, or deny, what they are filed under."""

import pytest

from chexgen_lib.descriptions import paraphrase
from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.records import FINDINGS


@pytest.mark.parametrize("finding", FINDINGS[1:])
def test_each_paraphrase_says_its_finding_and_place(finding):
    for wording in paraphrase.wordings()[finding]:
        text = paraphrase.placed(wording, "left", "lower lobe", "mild")
        said = read(text)
        assert {m.finding for m in said.affirmed if m.finding} == {finding}, text
        assert ("left", "lower lobe", "mild") in {m.place for m in said.affirmed}, text


@pytest.mark.parametrize("finding", FINDINGS[1:])
def test_each_denial_denies(finding):
    for key in range(len(paraphrase.DENIALS)):
        text = paraphrase.denial(finding, key)
        said = read(text)
        assert finding in {m.finding for m in said.denied}, text
        assert not {m.finding for m in said.affirmed} & set(FINDINGS), text
