"""How good is quality control? Descriptions with one planted fault each, and radiologists' own sentences.

``detection`` plants faults in descriptions that pass and counts how many ``quality_control.check`` reports,
once in the grammar's wording and once in ``paraphrase``'s, whose sentences were written by hand without
regard to the grammar or to the check. ``against_reports`` reads real reports (Open-i) and compares what was
read with the findings that human indexers coded.
"""

import zlib
from collections.abc import Callable, Iterator

import polars as pl
from scipy.stats import binomtest

from chexgen_lib import sources
from chexgen_lib.descriptions import grammar as describe
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.records import FINDINGS

Write = Callable[[pl.DataFrame], pl.Series]  # Records -> one description each
_SHARE = {"n": pl.Int64, "found": pl.Float64, "low": pl.Float64, "high": pl.Float64}


def detection(records: pl.DataFrame, n: int = 150, seed: int = 0, write: Write = describe.full) -> pl.DataFrame:
    """Columns source, fault, n, found, low, high: the share of planted faults that ``check`` reports.

    records: of any sources; the row "clean" is the share of their descriptions that is flagged without a
    fault. For each fault up to ``n`` records per source to which it applies, and whose description passes,
    are drawn. low and high: 95 % interval (Wilson). Left out, because nothing false is said: records with
    nothing to describe, texts that the fault does not change, and swapped sides where left and right are
    given alike.
    """
    rows = []
    for part in records.with_columns(write(records).alias("description")).partition_by("source", maintain_order=True):
        checked = check(part).filter(pl.col("qc") != "fail: nothing to describe")
        source = part["source"][0]
        rows.append((source, "clean", *_share(checked["qc"] != PASS)))
        for fault, (applies, plant) in FAULTS.items():
            chosen = checked.filter(pl.col("qc") == PASS, applies).sample(fraction=1, shuffle=True, seed=seed).head(n)
            texts = plant(chosen, write)
            planted = chosen.with_columns(texts.alias("description")).filter(texts != chosen["description"])
            rows.append((source, fault, *_share(check(planted)["qc"] != PASS)))
    return pl.DataFrame(rows, {"source": pl.String, "fault": pl.String} | _SHARE, orient="row")


def pooled(detection: pl.DataFrame) -> dict[str, float]:
    """Of all sources, faults and wordings together: number planted and share found, clean texts and share flagged."""
    together = {}
    for names, rows in (
        (("planted", "found"), detection.filter(pl.col("fault") != "clean")),
        (("clean", "flagged"), detection.filter(fault="clean")),
    ):
        n = int(rows["n"].sum())
        together |= dict(zip(names, (n, float((rows["n"] * rows["found"]).sum()) / max(n, 1)), strict=True))
    return together


def against_reports(records: pl.DataFrame) -> pl.DataFrame:
    """What ``read`` finds in radiologists' sentences, beside the Records' findings; one row per finding.

    records: with ``report`` or ``impression``; the first record of each study is taken. Columns finding;
    present, sensitivity and its 95 % interval (sensitivity_low, sensitivity_high); absent, specificity and
    interval; affirmed, precision and interval; hedged. A finding that the text only doubts ("may represent",
    "cannot exclude") is neither read as present nor as absent: it is counted in ``hedged`` and left out of
    the rest, as are unknown findings. "No Finding" is read where a text denies acute disease and affirms no
    other finding.
    """
    studies = records.unique("study_id", keep="first", maintain_order=True)
    text = pl.concat_str("report", "impression", separator="\n\n", ignore_nulls=True)
    studies = studies.select(*FINDINGS, text=text).filter(pl.col("text") != "")
    readings = [_findings_read(text) for text in studies["text"]]
    return pl.DataFrame([_agreement(f, studies[f], pl.Series([r[f] for r in readings], dtype=pl.Boolean))
                         for f in FINDINGS], infer_schema_length=None)  # fmt: skip


def _findings_read(text: str) -> dict[str, bool | None]:
    """Finding -> affirmed; None where it is only doubted."""
    reading = read(text)
    affirmed, hedged, denied = ({m.finding for m in ms} for ms in (reading.affirmed, reading.hedged, reading.denied))
    said = {f: True if f in affirmed else None if f in hedged else False for f in FINDINGS}
    return said | {"No Finding": "No Finding" in denied and not affirmed & set(FINDINGS)}


def _agreement(finding: str, truth: pl.Series, said: pl.Series) -> dict:
    known = truth.is_not_null()
    certain = known & said.is_not_null()
    row: dict = {"finding": finding}
    measures = {
        ("present", "sensitivity"): said.filter(certain & (truth == 1)),
        ("absent", "specificity"): ~said.filter(certain & (truth == 0)),
        ("affirmed", "precision"): truth.filter(certain & said) == 1,
    }
    for (count, name), agrees in measures.items():
        row[count], row[name], row[f"{name}_low"], row[f"{name}_high"] = _share(agrees)
    return row | {"hedged": (known & said.is_null()).sum()}


def _share(hits: pl.Series) -> tuple[int, float | None, float | None, float | None]:
    """n, the share of True, and its 95 % interval (Wilson); null where n is 0."""
    if hits.is_empty():
        return 0, None, None, None
    interval = binomtest(int(hits.sum()), hits.len()).proportion_ci(0.95, method="wilson")
    return hits.len(), hits.mean(), interval.low, interval.high


# --- the faults ---


def _dropped(df: pl.DataFrame) -> pl.DataFrame:
    """One present finding made unknown."""
    gone = _picked(df, pl.concat_list(pl.when(pl.col(f) == 1).then(pl.lit(f)) for f in FINDINGS[1:]))
    return df.with_columns(pl.when(gone != f).then(pl.col(f)).alias(f) for f in FINDINGS[1:])


def _added(df: pl.DataFrame) -> pl.DataFrame:
    """One finding made present that is not."""
    new = _picked(df, pl.concat_list(pl.when(pl.col(f).fill_null(0) == 0).then(pl.lit(f)) for f in FINDINGS[1:]))
    return df.with_columns(pl.when(new == f).then(1.0).otherwise(pl.col(f)).alias(f) for f in FINDINGS[1:])


def _picked(df: pl.DataFrame, findings: pl.Expr) -> pl.Series:
    """One of each row's findings, chosen by the image id."""
    listed = df.select("image_id", findings=findings.list.drop_nulls())
    return pl.Series([row[_hash(image) % len(row)] for image, row in listed.iter_rows()], dtype=pl.String)


def _negated(df: pl.DataFrame, write: Write) -> pl.Series:
    """A present finding is denied wherever it was affirmed."""
    left = _dropped(df)
    gone = left.select(pl.coalesce(pl.when(pl.col(f).is_null() & (df[f] == 1)).then(pl.lit(f)) for f in FINDINGS[1:]))
    denials = pl.Series([_denial(f, _hash(image)) for f, image in zip(gone.to_series(), df["image_id"], strict=True)])
    texts = write(left).str.replace_all("Not stated.", "", literal=True)
    return pl.select(texts.str.replace("Findings: ", pl.format("Findings: {} ", denials))
                     .str.replace("Impression: ", pl.format("Impression: {} ", denials))).to_series()  # fmt: skip


def _contradicted(df: pl.DataFrame, write: Write) -> pl.Series:
    """A present finding is denied in the Findings and still affirmed elsewhere."""
    present = _picked(df, pl.concat_list(pl.when(pl.col(f) == 1).then(pl.lit(f)) for f in FINDINGS[1:]))
    denials = pl.Series([_denial(f, _hash(image)) for f, image in zip(present, df["image_id"], strict=True)])
    return df.select(pl.col("description").str.replace("Findings: ", pl.format("Findings: {} ", denials))).to_series()


def _swapped(df: pl.DataFrame, write: Write) -> pl.Series:
    """Left and right change places in Findings and Impression."""
    text = pl.col("description")
    for old, new in ((r"\b([Ll])eft\b", "${1}\0"), (r"\b([Rr])ight\b", "${1}eft"), ("[Ll]\0", "right")):
        text = text.str.replace_all(old, new)
    text = text.str.replace_all(r"\b[Rr]eft\b", "left")
    return df.select(text).to_series()


def _doubted(df: pl.DataFrame, write: Write) -> pl.Series:
    doubts = pl.Series([DOUBTS[_hash(image) % len(DOUBTS)] for image in df["image_id"]], dtype=pl.String)
    doubtful = pl.format("Impression: {} ", doubts)
    return df.select(pl.col("description").str.replace("Impression: ", doubtful)).to_series()


def _changed(field: str, value: pl.Expr) -> pl.Expr:
    """Every detail's ``field`` set to another value."""
    return pl.col("details").list.eval(pl.element().struct.with_fields(value.alias(field)))


def _rewritten(**columns: pl.Expr) -> Callable[[pl.DataFrame, Write], pl.Series]:
    """The description of records of which some columns are altered."""
    return lambda df, write: write(df.with_columns(**columns))


def _has_one_side() -> pl.Expr:
    """Some finding or label has a side, and not the same places with left and right exchanged."""
    swapped = pl.element().struct.field("side").replace({"left": "right", "right": "left"})
    swapped = pl.col("details").list.eval(pl.element().struct.with_fields(swapped.alias("side")))
    return swapped.list.sort() != pl.col("details").list.sort()


DOUBTS = ("Possible", "Probable", "Findings may represent", "Suspected", "Cannot exclude", "Findings suggest")
_ILL = pl.any_horizontal(pl.col(f) == 1 for f in FINDINGS[1:])
_PLACED = pl.col("details").list.len() > 0
_SITE = pl.element().struct.field("site").fill_null("").replace_strict({"upper lobe": "base"}, default="upper lobe")
_SEVERITY = pl.element().struct.field("severity").fill_null("").replace_strict({"severe": "mild"}, default="severe")
_OTHER_SEX = pl.when(pl.col("sex") == "M").then(pl.lit("F")).otherwise(pl.lit("M"))
_OTHER_VIEW = pl.col("view").fill_null("").replace_strict({"PA": "AP", "AP": "LATERAL"}, default="PA")

# Fault -> (records to which it applies, how it is planted).
FAULTS: dict[str, tuple[pl.Expr, Callable[[pl.DataFrame, Write], pl.Series]]] = {
    "finding dropped": (_ILL, lambda df, write: write(_dropped(df))),
    "finding added": (pl.lit(True), lambda df, write: write(_added(df))),
    "finding negated": (_ILL, _negated),
    "finding contradicted": (_ILL, _contradicted),
    "side swapped": (_has_one_side(), _swapped),
    "site changed": (_PLACED, _rewritten(details=_changed("site", _SITE))),
    "severity changed": (_PLACED, _rewritten(details=_changed("severity", _SEVERITY))),
    "age changed": (pl.col("age").is_not_null(), _rewritten(age=(pl.col("age") + 7) % 90)),
    "sex changed": (pl.col("sex").is_not_null(), _rewritten(sex=_OTHER_SEX)),
    "view changed": (pl.lit(True), _rewritten(view=_OTHER_VIEW)),
    "speculation": (_ILL, _doubted),
}


# --- other words for the same ---


def paraphrase(df: pl.DataFrame) -> pl.Series:
    """Descriptions that say what the grammar says, in sentences written by hand; a hash of the image id chooses."""
    columns = df.select("image_id", "age", "sex", "race", "view", "labels", "details", *FINDINGS)
    return pl.Series("description", [_paraphrased(row) for row in columns.iter_rows(named=True)], dtype=pl.String)


def _paraphrased(row: dict) -> str:
    key = _hash(row["image_id"])
    body = [" ".join(_sentences(row, key + section)) or "Not stated." for section in (0, 7)]
    return f"{_head(row, key)} Findings: {body[0]} Impression: {body[1]}"


def _head(row: dict, key: int) -> str:
    """Patient information and technique."""
    age, sex, view = row["age"], row["sex"], row["view"]
    who = {"F": "female", "M": "male"}.get(sex, "")
    infant = age is not None and age < 1
    years = f" aged {int(age)} years" if age is not None and not infant else ""
    patient = " ".join(filter(None, ("A", row["race"], who, "infant" if infant else "patient")))
    known = view and view not in ("OTHER", "FRONTAL")
    technique = HEADS[key % len(HEADS)].format(f"{view if view in ('PA', 'AP') else view.lower()} " if known else "")
    technique = technique.replace("ap supine", "supine AP")
    return f"Patient Information: {patient}{years}. Technique: {technique}"


def _sentences(row: dict, key: int) -> Iterator[str]:
    """One section: findings that are present, other labels, then the normal sentence or two denials."""
    for finding in (f for f in FINDINGS[1:] if row[f] == 1):
        for i, place in enumerate(_places(row, finding)):
            wordings = WORDINGS[finding]
            yield _placed(wordings[(key + i) % len(wordings)], *place)
    for label in row["labels"]:
        if sources.finding_of(label) is None and label not in describe.SILENT:
            noun = describe.noun(label).removeprefix("a ").removeprefix("an ")
            for place in _places(row, label):
                yield _placed("{q}" + noun + "{at} is also noted.", *place)
    if row["No Finding"] == 1:
        yield NORMAL[key % len(NORMAL)]
    else:
        absent = [f for f in DENIABLE if row[f] == 0]
        yield from (_denial(absent[(key + i) % len(absent)], key + i) for i in range(min(2, len(absent))))


def _places(row: dict, subject: str) -> list[tuple[str | None, str | None, str | None]]:
    places = [(d["side"], d["site"], d["severity"]) for d in row["details"] if d["finding"] == subject]
    return list(dict.fromkeys(places)) or [(None, None, None)]


def _placed(wording: str, side: str | None, site: str | None, severity: str | None) -> str:
    """A wording with its qualifiers ("mild left ", {q}) and its place (" in the left upper lobe", {at})."""
    at = ""
    if site:
        at = f" in the {site} bilaterally" if side == "bilateral" else f" in the {side or ''} {site}".replace("  ", " ")
    q = "".join(f"{word} " for word in (severity, None if site else side) if word)
    text = wording.format(q=q, at=at)
    return text[:1].upper() + text[1:]


def _denial(finding: str, key: int) -> str:
    text = DENIALS[key % len(DENIALS)].format(NOUNS[finding])
    return text[:1].upper() + text[1:]


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


HEADS = (
    "A single {}view of the chest was obtained.",
    "{}radiograph of the chest.",
    "Chest, {}projection.",
    "The chest was imaged in {}projection.",
)
NORMAL = (
    "No acute cardiopulmonary process is identified.",
    "Normal chest radiograph.",
    "There is no active disease.",
    "No acute pulmonary disease is seen.",
    "Without acute intrathoracic abnormality.",
    "There is no evidence of acute disease.",
)
DENIABLE = ("Pneumothorax", "Effusion", "Consolidation", "Cardiomegaly", "Edema", "Pneumonia", "Fracture")
DENIALS = (
    "There is no {}.",
    "No evidence of {}.",
    "{} is not seen.",
    "{} is absent.",
    "The study is negative for {}.",
    "No {} is identified.",
    "The examination is without {}.",
    "{} has not developed.",
    "{} is no longer seen.",
    "There is no radiographic evidence of {}.",
    "{} has been excluded.",
    "The chest is free of {}.",
)
NOUNS = {
    "Enlarged Cardiomediastinum": "widening of the mediastinum",
    "Cardiomegaly": "cardiac enlargement",
    "Lung Opacity": "airspace opacity",
    "Lung Lesion": "pulmonary nodule",
    "Edema": "pulmonary edema",
    "Consolidation": "focal consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Effusion": "pleural fluid",
    "Pleural Other": "pleural thickening",
    "Fracture": "displaced fracture",
    "Support Devices": "support device",
}
# Wordings of each finding; {q}: severity and side, {at}: where.
WORDINGS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "{q}widening of the mediastinum is present{at}.",
        "The mediastinum is {q}widened{at}.",
        "There is {q}mediastinal enlargement{at}.",
        "The superior mediastinum appears {q}wide{at}.",
        "The cardiomediastinal silhouette is {q}enlarged{at}.",
        "{q}enlargement of the cardiomediastinal silhouette is shown{at}.",
        "Mediastinal contours are {q}widened{at}.",
        "The mediastinal shadow is {q}broadened{at}.",
        "{q}prominence of the mediastinum is observed{at}.",
        "The mediastinal silhouette appears {q}prominent{at}.",
        "{q}cardiomediastinal enlargement is apparent{at}.",
        "There is a {q}enlarged mediastinum{at}.",
        "Note is made of {q}mediastinal widening{at}.",
        "The mediastinum remains {q}enlarged{at}.",
        "{q}enlargement of the mediastinum is demonstrated{at}.",
    ),
    "Cardiomegaly": (
        "The cardiac silhouette is {q}enlarged{at}.",
        "The heart is {q}enlarged{at}.",
        "Heart size is {q}increased{at}.",
        "There is {q}enlargement of the cardiac silhouette{at}.",
        "{q}cardiomegaly is again demonstrated{at}.",
        "The heart appears {q}enlarged{at}.",
        "{q}cardiac enlargement is present{at}.",
        "The cardiac shadow appears {q}enlarged{at}.",
        "The cardiothoracic ratio is {q}increased{at}.",
        "{q}enlargement of the heart is evident{at}.",
        "The cardiac silhouette remains {q}enlarged in size{at}.",
        "Findings include {q}cardiomegaly{at}.",
        "{q}enlarged heart{at}.",
        "The heart is {q}large{at}.",
        "Stable {q}enlargement of the heart{at}.",
    ),
    "Lung Opacity": (
        "{q}airspace opacity is present{at}.",
        "There is {q}opacification{at}.",
        "{q}hazy opacities are seen{at}.",
        "An ill-defined {q}opacity is visible{at}.",
        "{q}patchy airspace disease is noted{at}.",
        "Patchy {q}parenchymal opacity is demonstrated{at}.",
        "There are {q}interstitial opacities{at}.",
        "{q}infiltrates are present{at}.",
        "A {q}pulmonary infiltrate is identified{at}.",
        "Streaky {q}pulmonary opacities project over the lung{at}.",
        "{q}ground-glass opacity is noted{at}.",
        "Reticular {q}opacity is again seen{at}.",
        "There is {q}haziness of the lung{at}.",
        "{q}air space opacities have developed{at}.",
        "Findings consistent with {q}airspace disease{at}.",
    ),
    "Lung Lesion": (
        "A {q}pulmonary nodule is identified{at}.",
        "There is a {q}rounded mass{at}.",
        "A well-circumscribed {q}lung nodule is seen{at}.",
        "{q}nodular lesion is present{at}.",
        "There is a {q}lung lesion{at}.",
        "A spiculated {q}pulmonary mass is demonstrated{at}.",
        "{q}calcified granuloma is present{at}.",
        "{q}pulmonary nodules are visible{at}.",
        "A discrete {q}nodule projects over the lung{at}.",
        "Note is made of a {q}mass lesion of the lung{at}.",
        "A solitary {q}nodule is noted{at}.",
        "There are {q}lung masses{at}.",
        "A cavitary {q}pulmonary lesion is shown{at}.",
        "{q}granulomas are noted{at}.",
        "Round {q}lung mass is present{at}.",
    ),
    "Edema": (
        "There is {q}pulmonary edema{at}.",
        "{q}interstitial edema is present{at}.",
        "The appearance is consistent with {q}pulmonary edema{at}.",
        "Findings of {q}alveolar edema{at}.",
        "{q}edema has developed in the lungs{at}.",
        "The lungs show {q}edema{at}.",
        "Diffuse {q}pulmonary edema is demonstrated{at}.",
        "{q}edema of the lungs is seen{at}.",
        "There are Kerley lines of {q}interstitial edema{at}.",
        "Cardiogenic {q}pulmonary edema is noted{at}.",
        "Features of {q}edema are visible{at}.",
        "{q}pulmonary interstitial edema is again seen{at}.",
        "Vascular indistinctness represents {q}pulmonary edema{at}.",
        "Hazy vessels consistent with {q}pulmonary edema{at}.",
        "The vessels are indistinct, in keeping with {q}edema{at}.",
    ),
    "Consolidation": (
        "There is {q}focal consolidation{at}.",
        "A region of {q}consolidation is identified{at}.",
        "{q}airspace consolidation is present{at}.",
        "{q}consolidative change is seen{at}.",
        "Dense {q}consolidation has developed{at}.",
        "Ill-defined {q}consolidation is shown{at}.",
        "{q}lobar consolidation is evident{at}.",
        "The lung is the site of {q}consolidation{at}.",
        "An area of {q}consolidation{at} with loss of vascular markings.",
        "Confluent {q}consolidation is demonstrated{at}.",
        "{q}alveolar consolidation is again noted{at}.",
        "{q}lung consolidation persists{at}.",
        "Patchy {q}consolidations are visible{at}.",
        "Findings include {q}consolidation{at}.",
        "Persistent {q}pulmonary consolidation{at}.",
    ),
    "Pneumonia": (
        "Findings are consistent with {q}pneumonia{at}.",
        "There is {q}pneumonia{at}.",
        "{q}lobar pneumonia is present{at}.",
        "{q}bronchopneumonia is demonstrated{at}.",
        "The appearance is that of {q}pneumonia{at}.",
        "An infectious process in keeping with {q}pneumonia{at}.",
        "{q}pneumonia is identified{at}.",
        "{q}pneumonia has developed{at}.",
        "Features of {q}pneumonia are seen{at}.",
        "The study demonstrates {q}pneumonia{at}.",
        "Focal {q}pneumonia is visible{at}.",
        "Airspace filling consistent with {q}pneumonia{at}.",
        "Multifocal {q}pneumonia is noted{at}.",
        "{q}pneumonia persists{at}.",
        "Active {q}pneumonia is observed{at}.",
    ),
    "Atelectasis": (
        "There is {q}atelectasis{at}.",
        "{q}subsegmental atelectasis is present{at}.",
        "Linear {q}atelectasis is seen{at}.",
        "{q}atelectatic changes are noted{at}.",
        "{q}plate-like atelectasis is identified{at}.",
        "Bands of {q}atelectasis are visible{at}.",
        "{q}discoid atelectasis is demonstrated{at}.",
        "Volume loss consistent with {q}atelectasis{at}.",
        "{q}partial collapse is shown{at}.",
        "{q}compressive atelectasis has developed{at}.",
        "Streaky {q}atelectasis is again noted{at}.",
        "Low lung volumes and {q}atelectasis{at}.",
        "The lung shows {q}collapse{at}.",
        "{q}passive atelectasis is evident{at}.",
        "Crowding of vessels consistent with {q}atelectasis{at}.",
    ),
    "Pneumothorax": (
        "There is a {q}pneumothorax{at}.",
        "{q}pneumothorax is identified{at}.",
        "A {q}pneumothorax persists{at}.",
        "A visible pleural line represents a {q}pneumothorax{at}.",
        "{q}apicolateral pneumothorax is seen{at}.",
        "{q}pneumothorax has developed{at}.",
        "Air in the pleural space consistent with {q}pneumothorax{at}.",
        "A {q}pneumothorax is again demonstrated{at}.",
        "Findings include a {q}pneumothorax{at}.",
        "A rim of {q}pneumothorax is visible{at}.",
        "Absence of lung markings laterally; {q}pneumothorax{at}.",
        "The study shows {q}pneumothorax{at}.",
        "{q}residual pneumothorax is noted{at}.",
        "Lucency beyond the visceral pleura consistent with {q}pneumothorax{at}.",
        "Note is made of {q}pneumothorax{at}.",
    ),
    "Effusion": (
        "There is {q}pleural effusion{at}.",
        "Blunting of the costophrenic angle consistent with {q}effusion{at}.",
        "{q}pleural fluid is present{at}.",
        "{q}effusion layers dependently{at}.",
        "There is a {q}layering effusion{at}.",
        "{q}pleural effusions are seen{at}.",
        "Fluid in the pleural space represents {q}effusion{at}.",
        "A {q}pleural effusion has accumulated{at}.",
        "Meniscus sign of {q}pleural effusion{at}.",
        "{q}free-flowing pleural fluid is demonstrated{at}.",
        "{q}effusion is again noted{at}.",
        "{q}pleural fluid collection is visible{at}.",
        "The pleural space contains {q}effusion{at}.",
        "Dependent {q}effusion is shown{at}.",
        "Findings include {q}pleural effusion{at}.",
    ),
    "Pleural Other": (
        "There is {q}pleural thickening{at}.",
        "The pleura is {q}thickened{at}.",
        "{q}pleural plaques are present{at}.",
        "{q}pleural scarring is noted{at}.",
        "Thickening of the {q}pleura is seen{at}.",
        "{q}pleural calcification is identified{at}.",
        "{q}calcified pleural plaque is visible{at}.",
        "There is {q}fissure thickening{at}.",
        "Chronic {q}pleural thickening is again demonstrated{at}.",
        "Irregular {q}pleural thickening is shown{at}.",
        "{q}pleural scarring{at} with a chronic appearance.",
        "{q}pleural disease is evident{at}.",
        "Smooth {q}pleural thickening persists{at}.",
        "{q}pleural abnormality is observed{at}.",
        "The study shows {q}thickened pleura{at}.",
    ),
    "Fracture": (
        "There is a {q}fracture{at}.",
        "{q}displaced fracture is present{at}.",
        "A {q}healing fracture is identified{at}.",
        "Old {q}fracture deformity is seen{at}.",
        "{q}bone fracture is demonstrated{at}.",
        "{q}fractures are visible{at}.",
        "A cortical break represents a {q}fracture{at}.",
        "The study demonstrates {q}fracture{at}.",
        "Acute {q}fracture is noted{at}.",
        "{q}nondisplaced fracture is shown{at}.",
        "{q}fracture{at} with callus is observed.",
        "Findings include a {q}fracture{at}.",
        "Comminuted {q}fracture is apparent{at}.",
        "A healed {q}fracture is again noted{at}.",
        "Bony injury with {q}fracture{at}.",
    ),
    "Support Devices": (
        "A {q}central venous catheter is in place{at}.",
        "{q}pacemaker leads are in place{at}.",
        "{q}endotracheal tube is in position{at}.",
        "{q}PICC line terminates centrally{at}.",
        "A {q}chest tube is in situ{at}.",
        "{q}nasogastric tube courses below the diaphragm{at}.",
        "There is a {q}port-a-cath{at}.",
        "An implanted {q}medical device projects over the chest{at}.",
        "Unchanged {q}support devices{at}.",
        "{q}enteric tube is visualized{at}.",
        "{q}tracheostomy tube is noted{at}.",
        "A {q}central line is present{at}.",
        "{q}ICD is seen{at}.",
        "Indwelling {q}catheter is demonstrated{at}.",
        "{q}support device is present{at}.",
    ),
}
