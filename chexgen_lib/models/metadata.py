"""Who and what a radiograph should show, as tokens beside the text's: age, sex, view, source and the 14 findings.

A row of metadata becomes a row of `CODES` numbers, NaN where nothing is given (`encode_metadata`); the encoder turns
each given attribute into one token that the transformer attends to. An attribute that is not given has no token, so any
subset can be requested; training drops attributes (`drop_attributes`) so that the model meets every subset.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import polars as pl
import torch
from torch import Tensor, nn

from chexgen_lib.records import FINDINGS, MAX_AGE, SEVERITIES, SIDES, VIEWS

SEXES = ("F", "M")
ATTRIBUTES = ("age", "sex", "view", "source", *FINDINGS)  # each one token, and one code at its place
DETAIL = '{"finding": "Effusion", "side": "left", "severity": "mild"}'  # as an example
METADATA = ["image_id", *ATTRIBUTES, "details"]  # columns of Records
CODES = len(ATTRIBUTES) + 2 * len(FINDINGS)  # then the findings' sides, then their severities
STATES = {0: 0, 1: 1, "absent": 0, "present": 1}
PERIODS = tuple(2.0 * MAX_AGE / 2**k for k in range(6))  # years, of the age's waves: 240 to 7.5
_FIRST_FINDING = ATTRIBUTES.index(FINDINGS[0])


class MetadataError(ValueError):
    """Invalid metadata; the message names the row, the attribute and the remedy."""


def encode_metadata(rows: Sequence[Mapping], sources: Sequence[str]) -> Tensor:
    """Codes float32 [B, CODES] of metadata, NaN where nothing is given.

    A row is a Record, of which the other columns are not read, or a dict of some of: `age` (years, 0 to 120), `sex`
    (F or M), `view` (a name in `records.VIEWS`), `source` (one of `sources`, the model's), a finding (1 or "present", 0
    or "absent"), and `details`, as in a Record: dicts of `finding` and maybe `side` and `severity`, of findings that
    are present. None and NaN mean "not given". Two sides of a finding are "bilateral"; of two severities the worse
    counts.

    Raises:
        MetadataError: for an unknown key, an invalid value, "No Finding" beside a finding, or details of a finding that
            is not present. (A Record's details of other labels, or of uncertain findings, are not read.)
    """
    codes = torch.full((len(rows), CODES), math.nan)
    for number, row in enumerate(rows):
        try:
            _encode(row, tuple(sources), codes[number])
        except MetadataError as error:
            name = f" (image_id {row['image_id']!r})" if "image_id" in row else ""
            raise MetadataError(f"metadata of row {number}{name}: {error}") from error
    return codes


def rows_of(records: pl.DataFrame, sources: Sequence[str]) -> list[dict]:
    """Records as metadata, with the details of their findings, for a model that knows these sources.

    The source of a record is left out where the model does not know it, as that of stage II's images.
    """
    known = pl.when(pl.col("source").is_in(list(sources))).then("source")
    return records.select(METADATA).with_columns(source=known).to_dicts()


def encode_records(records: pl.DataFrame, sources: Sequence[str]) -> Tensor:
    """Codes [N, CODES] of Records (`rows_of`)."""
    return encode_metadata(rows_of(records, sources), sources)


def drop_attributes(codes: Tensor, generator: torch.Generator, rows: float = 0.0) -> Tensor:
    """Codes with each attribute dropped independently, at a rate sampled for each row uniformly from 0 to 1.

    So subsets of all sizes, including none and all attributes, occur equally often.

    rows: share of rows that lose all of them, in addition.
    """
    shape = len(codes), len(ATTRIBUTES)
    dropped = torch.rand(shape, generator=generator) < torch.rand(len(codes), 1, generator=generator)
    if rows:
        dropped |= torch.rand(len(codes), 1, generator=generator) < rows
    return keep_attributes(codes, ~dropped)


def keep_attributes(codes: Tensor, kept: Tensor) -> Tensor:
    """Codes with only the attributes where `kept`, bool [B, 18] or [18], is true."""
    first, rest = codes[:, : len(ATTRIBUTES)], codes[:, len(ATTRIBUTES) :]
    return torch.cat([first.masked_fill(~kept, math.nan), rest], dim=1)  # a finding without a state has no details


class MetadataEncoder(nn.Module):
    """Codes [B, CODES] to tokens [B, 18, width], and which of them are given, bool [B, 18].

    Age is continuous, as waves of `PERIODS` years; the other attributes are looked up. A finding's side and severity
    are added to its token. What is given also shifts the blocks' modulation (`tables`), as the pooled text of Esser et
    al. 2024 does: a subtle attribute, such as sex, is one token among many, and through attention alone it is learnt
    late.

    width, hidden_size: of the text states, and of the transformer.
    """

    def __init__(self, width: int, sources: Sequence[str], hidden_size: int):
        super().__init__()
        self.age = nn.Linear(2 * len(PERIODS), width)
        self.sex = nn.Embedding(len(SEXES), width)
        self.view = nn.Embedding(len(VIEWS), width)
        self.source = nn.Embedding(max(1, len(sources)), width)
        self.findings = nn.Embedding(2 * len(FINDINGS), width)  # absent, present; absent, present; ...
        self.side = nn.Embedding(len(SIDES), width)
        self.severity = nn.Embedding(len(SEVERITIES), width)
        self.table = nn.Linear(width, 6 * hidden_size, bias=False)

    def tables(self, tokens: Tensor, given: Tensor) -> Tensor:
        """What the given attributes add to the blocks' shared adaLN table, [B, 6, hidden_size]; zero for none.

        tokens, given: what `forward` returned.
        """
        scale = tokens[0].numel() ** 0.5  # unscaled, AdamW's first steps overshoot
        pooled = (tokens * given[..., None]).sum(1) / scale  # [B, width]
        return self.table(pooled).unflatten(1, (6, -1))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        attributes, sides, severities = codes.split([len(ATTRIBUTES), len(FINDINGS), len(FINDINGS)], dim=1)
        known = attributes.nan_to_num()
        waves = known[:, :1] * (2 * math.pi / codes.new_tensor(PERIODS))  # [B, waves]
        sex, view, source = (
            table(known[:, i].long()) for i, table in enumerate((self.sex, self.view, self.source), start=1)
        )
        # Computed in the precision of the others: that of the weights, unless they are cast only while they are used.
        age = self.age(torch.cat([waves.sin(), waves.cos()], dim=1).to(sex.dtype))
        first = 2 * torch.arange(len(FINDINGS), device=codes.device)
        findings = self.findings(first + known[:, _FIRST_FINDING:].long())  # [B, 14, width]
        findings = findings + _given(self.side, sides) + _given(self.severity, severities)
        return torch.cat([torch.stack([age, sex, view, source], dim=1), findings], dim=1), ~attributes.isnan()


def _given(table: nn.Embedding, codes: Tensor) -> Tensor:
    """Looked-up codes [B, n] -> [B, n, width], zero where NaN."""
    return table(codes.nan_to_num().long()) * ~codes.isnan()[..., None]


def _encode(row: Mapping, sources: tuple[str, ...], codes: Tensor) -> None:
    """Write the codes of one row into `codes` [CODES]."""
    record = "image_id" in row
    unknown = [] if record else [key for key in row if key not in (*ATTRIBUTES, "details")]
    if unknown:
        raise MetadataError(f"unknown {', '.join(map(repr, unknown))}: use {', '.join(ATTRIBUTES)} or details")
    given = {name: row[name] for name in ATTRIBUTES if not _says_nothing(row.get(name))}
    present = {finding for finding in FINDINGS if _state(finding, given.get(finding, 0))}
    ill = sorted(present - {"No Finding", "Support Devices"}, key=FINDINGS.index)
    if "No Finding" in present and ill:
        raise MetadataError(f"'No Finding' and {ill[0]!r} are both present: take one away")
    choices = {"sex": SEXES, "view": VIEWS, "source": sources}
    for name, value in given.items():
        if name == "age":
            code = _age(value)
        else:
            code = _choice(name, value, choices[name]) if name in choices else _state(name, value)
        codes[ATTRIBUTES.index(name)] = code
    details = row.get("details")
    details = [] if details is None else details
    if isinstance(details, str | Mapping) or not all(isinstance(detail, Mapping) for detail in details):
        raise MetadataError(f"details {details!r} are no list: write [{DETAIL}]")
    _encode_details([x for x in details if not record or x["finding"] in present], present, codes)


def _encode_details(details: Sequence[Mapping], present: set[str], codes: Tensor) -> None:
    sides, severities = codes[len(ATTRIBUTES) :].view(2, len(FINDINGS))
    for detail in details:
        finding = detail.get("finding")
        if finding not in FINDINGS:
            raise MetadataError(f"details of an unknown finding {finding!r}: use {', '.join(FINDINGS)}")
        if finding not in present:
            raise MetadataError(f"details of {finding!r}, which is not present: ask for it, or take them away")
        i = FINDINGS.index(finding)
        if not _says_nothing(detail.get("side")):
            side = _choice(f"side of {finding}", detail["side"], SIDES)
            both = not sides[i].isnan() and sides[i] != side
            sides[i] = SIDES.index("bilateral") if both else side
        if not _says_nothing(detail.get("severity")):
            severity = _choice(f"severity of {finding}", detail["severity"], SEVERITIES)
            severities[i] = max(severity, int(severities[i].nan_to_num(0)))


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _age(value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= MAX_AGE:
        raise MetadataError(f"age {value!r} is no number of years from 0 to {MAX_AGE}")
    return float(value)


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> int:
    if value not in allowed:
        raise MetadataError(f"{name} {value!r} is none of {', '.join(allowed) or 'this model (it knows no sources)'}")
    return allowed.index(value)


def _state(finding: str, value: object) -> int:
    if not isinstance(value, Real | str) or value not in STATES:
        raise MetadataError(f"{finding} {value!r} is neither 1 (present) nor 0 (absent)")
    return STATES[value]
