"""PadChest (Bustos et al. 2020): 160,861 radiographs, Spanish reports, labels and locations on a UMLS tree.

39,053 rows were labelled by physicians and 121,808 by the authors' text classifier; both use the same English
label and location names. ``report`` is the dataset's pre-processed (stemmed) Spanish text, verbatim.
"""

import gzip
import re
from functools import lru_cache
from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, MAX_AGE, SCHEMA, conform
from chexgen_lib.sources import contradicted, read_table, separate, sex, shipped, states, unread
from chexgen_lib.sources.datasheet import Datasheet, Part, locate

Detail = tuple[str, str | None, str | None]  # finding or label, side, site
DATASHEET = Datasheet(
    source="padchest",
    title="PadChest",
    role="stage I",
    paper_name="PadChest",
    size="160,861 radiographs of 67,625 patients with Spanish reports; 174 findings, 19 differential diagnoses and 104 "
    "locations, 27 % of the reports labelled by physicians, the others by a network",
    licence="PadChest Dataset Research Use Agreement: research only, no redistribution",
    obtain="registration at BIMCV, the Medical Imaging Databank of the Valencia Region, with the agreement signed",
    citation="Bustos A, Pertusa A, Salinas JM, de la Iglesia-Vaya M. PadChest: A large chest x-ray image dataset with "
    "multi-label annotated reports. Medical Image Analysis 66:101797, 2020.",
    parts=(
        Part("**/PADCHEST*.csv*", "one row per image: patient, view, report, labels and locations"),
        Part("**/*.png", "images of 16 bits, in folders numbered 0 to 54", needed=False),
    ),
    shipped=True,
)
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
COLUMNS = (
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
)
COLUMNS += ("Projection", "Report", "Labels", "LabelsLocalizationsBySentence")
VIEWS = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP SUPINE", "L": "LATERAL", "COSTAL": "COSTAL"}

_LABELS: dict[str | None, str] = {
    "No Finding": "normal",
    "Enlarged Cardiomediastinum": "mediastinal enlargement, superior mediastinal enlargement, mediastinal mass",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "infiltrates, alveolar pattern, interstitial pattern, reticular interstitial pattern, "
    "reticulonodular interstitial pattern, ground glass pattern, increased density, miliary opacities",
    "Lung Lesion": "nodule, multiple nodules, pulmonary mass, granuloma, calcified granuloma, "
    "lung metastasis, "
    "lepidic adenocarcinoma, cavitation, abscess",
    "Edema": "pulmonary edema, kerley lines",
    "Consolidation": "consolidation, air bronchogram",
    "Pneumonia": "pneumonia, atypical pneumonia",
    "Atelectasis": "atelectasis, laminar atelectasis, lobar atelectasis, segmental atelectasis, "
    "total atelectasis, "
    "round atelectasis, atelectasis basal",
    "Pneumothorax": "pneumothorax, hydropneumothorax",
    "Effusion": "pleural effusion, loculated pleural effusion, loculated fissural effusion, empyema",
    "Pleural Other": "pleural thickening, apical pleural thickening, calcified pleural thickening, "
    "pleural plaques, "
    "calcified pleural plaques, pleural mass, fissure thickening, minor fissure thickening, "
    "major fissure thickening",
    "Fracture": "fracture, rib fracture, callus rib fracture, clavicle fracture, humeral fracture, vertebral fracture",
    "Support Devices": "NSG tube, endotracheal tube, tracheostomy tube, chest drain tube, gastrostomy tube, "
    "nephrostomy tube, ventriculoperitoneal drain tube, double J stent, catheter, central venous catheter, "
    "central venous catheter via jugular vein, central venous catheter via subclavian vein, "
    "central venous catheter via umbilical vein, reservoir central venous catheter, pacemaker, "
    "single chamber device, dual chamber device, dai, electrical device, artificial heart valve, "
    "artificial mitral heart valve, artificial aortic heart valve, aortic endoprosthesis, endoprosthesis, "
    "osteosynthesis material",
    None: "COPD signs, aortic elongation, supra aortic elongation, ascendent aortic elongation, "
    "descendent aortic elongation, aortic button enlargement, aortic atheromatosis, aortic aneurysm, "
    "right sided aortic arch, scoliosis, kyphosis, chronic changes, costophrenic angle blunting, "
    "air trapping, "
    "vertebral degenerative changes, vascular hilar enlargement, hilar enlargement, hilar congestion, "
    "fibrotic band, "
    "sternotomy, bronchiectasis, hemidiaphragm elevation, hiatal hernia, heart insufficiency, volume loss, "
    "vertebral anterior compression, vertebral compression, pseudonodule, bronchovascular markings, "
    "hypoexpansion, "
    "hypoexpansion basal, nipple shadow, suture material, diaphragmatic eventration, "
    "calcified densities, metal, "
    "goiter, emphysema, mastectomy, pulmonary fibrosis, gynecomastia, osteopenia, osteoporosis, "
    "tuberculosis, tuberculosis sequelae, flattened diaphragm, calcified adenopathy, adenopathy, "
    "calcified mediastinal adenopathy, mammary prosthesis, tracheal shift, sclerotic bone lesion, bullas, "
    "hyperinflated lung, azygos lobe, surgery, surgery neck, surgery breast, surgery lung, surgery heart, "
    "surgery humeral, axial hyperostosis, pectum excavatum, pectum carinatum, mediastinic lipomatosis, "
    "lipomatosis, "
    "non axial articular degenerative changes, vascular redistribution, central vascular redistribution, "
    "end on vessel, thoracic cage deformation, post radiotherapy changes, subcutaneous emphysema, "
    "air fluid level, "
    "pulmonary artery enlargement, pulmonary hypertension, pulmonary artery hypertension, "
    "pulmonary venous hypertension, lung vascular paucity, costochondral junction hypertrophy, "
    "sternoclavicular junction hypertrophy, bone metastasis, heart valve calcified, humeral prosthesis, "
    "prosthesis, "
    "cervical rib, soft tissue mass, breast mass, mass, asbestosis signs, abnormal foreign body, "
    "external foreign body, blastic bone lesion, lytic bone lesion, pneumoperitoneo, pneumomediastinum, "
    "azygoesophageal recess shift, mediastinal shift, obesity, calcified fibroadenoma, "
    "subacromial space narrowing, respiratory distress, lymphangitis carcinomatosa, Chilaiditi sign, "
    "dextrocardia, "
    "bone cement, cyst, pericardial effusion, esophagic dilatation",
}
FINDING_OF: dict[str, str | None] = {
    label: finding for finding, labels in _LABELS.items() for label in labels.split(", ")
}
# Not about the image's content: compared with an earlier study, or badly taken. Nothing is absent for lack of
# a label there, because the report did not go through the findings.
INCOMPLETE = ("unchanged", "suboptimal study", "")
# A finding that may be there although its own label is not, because one of these is.
MAYBE = {
    "Lung Opacity": "pneumonia, atypical pneumonia, consolidation, air bronchogram, atelectasis, "
    "lobar atelectasis, "
    "total atelectasis, segmental atelectasis, laminar atelectasis, atelectasis basal, pulmonary edema, "
    "pulmonary mass, nodule, multiple nodules, lung metastasis, cavitation, abscess, volume loss, "
    "pulmonary fibrosis, tuberculosis, calcified densities, lymphangitis carcinomatosa",
    "Lung Lesion": "mass, pseudonodule, calcified densities, tuberculosis, cyst",
    "Edema": "hilar congestion, vascular redistribution, central vascular redistribution, "
    "heart insufficiency, "
    "respiratory distress",
    "Consolidation": "pneumonia, atypical pneumonia, alveolar pattern, infiltrates, lobar atelectasis",
    "Pneumonia": "infiltrates, alveolar pattern, consolidation, air bronchogram, abscess",
    "Atelectasis": "volume loss, hypoexpansion, hypoexpansion basal",
    "Effusion": "costophrenic angle blunting, hydropneumothorax",
    "Enlarged Cardiomediastinum": "mediastinic lipomatosis, goiter, aortic aneurysm, adenopathy",
    "Pleural Other": "costophrenic angle blunting, asbestosis signs",
    "Fracture": "vertebral compression, vertebral anterior compression",
    "Support Devices": "metal, suture material, abnormal foreign body, humeral prosthesis, prosthesis, bone cement",
}
# Location -> (side, site). Organs that the label itself names (loc pleural, loc cardiac) add neither.
_BOTH, _LEFT, _RIGHT = "bilateral", "left", "right"
LOCATIONS: dict[str, tuple[str | None, str | None]] = {
    "left": (_LEFT, None),
    "right": (_RIGHT, None),
    "bilateral": (_BOTH, None),
    "diffuse bilateral": (_BOTH, None),
    "basal": (None, "base"),
    "basal bilateral": (_BOTH, "base"),
    "apical": (None, "apex"),
    "upper lobe": (None, "upper lobe"),
    "left upper lobe": (_LEFT, "upper lobe"),
    "right upper lobe": (_RIGHT, "upper lobe"),
    "middle lobe": (None, "middle lobe"),
    "lingula": (None, "lingula"),
    "lower lobe": (None, "lower lobe"),
    "left lower lobe": (_LEFT, "lower lobe"),
    "right lower lobe": (_RIGHT, "lower lobe"),
    "upper lung field": (None, "upper lung field"),
    "middle lung field": (None, "middle lung field"),
    "lower lung field": (None, "lower lung field"),
    "hilar": (None, "hilum"),
    "hilar bilateral": (_BOTH, "hilum"),
    "perihilar": (None, "perihilar region"),
    "suprahilar": (None, "perihilar region"),
    "infrahilar": (None, "perihilar region"),
    "retrocardiac": (None, "retrocardiac region"),
    "costophrenic angle": (None, "costophrenic angle"),
    "left costophrenic angle": (_LEFT, "costophrenic angle"),
    "right costophrenic angle": (_RIGHT, "costophrenic angle"),
    "bilateral costophrenic angle": (_BOTH, "costophrenic angle"),
    "cardiophrenic angle": (None, "cardiophrenic angle"),
    "paratracheal": (None, "paratracheal region"),
    "rib": (None, "rib"),
    "anterior rib": (None, "rib"),
    "posterior rib": (None, "rib"),
    "clavicle": (None, "clavicle"),
    "scapula": (None, "scapula"),
    "humerus": (None, "humerus"),
    "humeral head": (None, "humerus"),
    "humeral neck": (None, "humerus"),
    "dorsal vertebrae": (None, "thoracic spine"),
    "lumbar vertebrae": (None, "lumbar spine"),
    "cervical vertebrae": (None, "cervical spine"),
    "mediastinum": (None, "mediastinum"),
    "superior mediastinum": (None, "mediastinum"),
    "anterior mediastinum": (None, "mediastinum"),
    "middle mediastinum": (None, "mediastinum"),
    "posterior mediastinum": (None, "mediastinum"),
    "lower mediastinum": (None, "mediastinum"),
    "left hypochondrium": (_LEFT, "upper abdomen"),
    "right hypochondrium": (_RIGHT, "upper abdomen"),
    "hypochondrium": (None, "upper abdomen"),
    "axilar": (None, "axilla"),
} | dict.fromkeys(
    "cardiac, pleural, aortic, hemithorax, tracheal, diaphragm, central, bronchi, lobar, superior cave vein, "
    "subsegmental, infradiaphragm, column, subclavian vein, bone, pectoral, supra aortic, nipple, "
    "cervical, fissure, "
    "lung field, gastric chamber, minor fissure, major fissure, soft tissue, aortic button, subcutaneous, "
    "paravertebral, shoulder, pulmonary artery, paracardiac, esophageal, brachiocephalic veins, peribronchi, "
    "subpleural, aortopulmonary window, gallbladder, glenohumeral joint, thymus, extrapleural, "
    "intersomatic space, "
    "paramediastinum, rotator cuff, acromioclavicular joint, coronary, extrapulmonary, epigastric, "
    "costoesternal, "
    "supraspisnous, rib cartilage, airways, supradiaphragm, carotid artery".split(", "),
    (None, None),
)
# Sites that a label names itself, so that a detail need not: "rib fracture", loc rib.
_NAMED = {
    "rib": "rib",
    "clavicle": "clavicle",
    "humer": "humerus",
    "hilar": "hilum",
    "mediastin": "mediastinum",
    "apical": "apex",
    "basal": "base",
    "vertebra": "spine",
    "costophrenic": "costophrenic angle",
}
_MIDLINE = ("Cardiomegaly", "Enlarged Cardiomediastinum")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_SIDED = re.compile(r" (both sides|left side|right side)$")


def load(path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the PadChest table.

    Rejected: no labels (nan), studies or projections that the dataset marks "exclude", unknown labels,
    broken or duplicate rows. Age is the study's year less the birth year (both of the same row), so within
    one year. A label that a row does not list is absent, except in incomplete reports and where MAYBE
    leaves it open.
    """
    table, rejects = separate(_prepare(path), "padchest")
    table = table.with_columns(source=pl.lit("padchest"))
    return conform(table.select(c for c in SCHEMA if c in table.columns)), rejects


def repairs(path: str | Path | None = None) -> pl.DataFrame:
    """Birth years, sexes and projections that could not be used, locations that LOCATIONS does not know, and
    "normal" where a finding is listed too."""
    table = separate(_prepare(path), "padchest")[0]
    fields = {"age": "PatientBirth", "sex": "PatientSex_DICOM", "view": "Projection"}
    names = pl.col("LabelsLocalizationsBySentence").str.extract_all(r"'\s*loc [^']+'")
    places = table.select("row", "image_id", value=names).explode("value").drop_nulls("value")
    places = places.filter(~pl.col("value").str.strip_chars(" '").str.slice(4).is_in(list(LOCATIONS)))
    places = places.select(pl.lit("padchest").alias("source"), pl.col("row").cast(pl.String), "image_id",
                           pl.lit("details").alias("field"), "value")  # fmt: skip
    normal = pl.col("labels").list.contains("normal")
    return pl.concat([unread(table, "padchest", fields), places, contradicted(table, "padchest", normal, "Labels")])


def physical_lines(path: str | Path | None = None) -> int:
    """Lines of the file less its header: more than its rows, because quoted fields contain line breaks."""
    with gzip.open(_table(path)) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 22), b"")) - 1


def _table(path: str | Path | None) -> Path:
    return locate(path, "PADCHEST*.csv*", "**/PADCHEST*.csv*", "**/*160K*.csv*") if path else shipped(TABLE)


def _prepare(path: str | Path | None) -> pl.DataFrame:
    """The raw table with the Record's columns, and the reason to reject a row, if any."""
    table = read_table(_table(path), COLUMNS)
    for column, meaning in (("Labels", _labels), ("LabelsLocalizationsBySentence", _details)):
        table = table.join(meaning(table[column]), on=column, how="left", maintain_order="left")
    year = pl.col("StudyDate_DICOM").str.slice(0, 4).cast(pl.Int32, strict=False)
    age = year - pl.col("PatientBirth").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
    reason = (
        pl.when(pl.col("PatientID") == "").then(pl.lit("no patient id"))
        .when(~pl.col("Labels").str.starts_with("[")).then(pl.lit("no labels"))
        .when("excluded").then(pl.lit("study excluded by the dataset"))
        .when(pl.col("Projection") == "EXCLUDE").then(pl.lit("projection excluded by the dataset"))
        .when(pl.col("unknown label").is_not_null()).then(pl.format("unknown label '{}'", "unknown label"))
    )  # fmt: skip
    return table.with_columns(
        image_id=pl.format("padchest:{}", pl.col("ImageID").str.replace(r"\.\w+$", "")),
        patient_id=pl.format("padchest:{}", "PatientID"),
        study_id=pl.format("padchest:{}", "StudyID"),
        image=pl.format("{}/{}", "ImageDir", "ImageID"),
        age=pl.when(age.is_between(0, MAX_AGE)).then(age).cast(pl.Float32),
        sex=sex(pl.col("PatientSex_DICOM")),
        view=pl.col("Projection").replace_strict(VIEWS, default=None, return_dtype=pl.String),
        report=pl.col("Report").str.strip_chars().replace({"": None}),
        reason=reason,
    )


def _labels(given: pl.Series) -> pl.DataFrame:
    """What each distinct text of labels means: ``labels``, the states of the 14 findings, ``excluded`` and the
    first unknown label."""
    quoted = pl.col(given.name).str.extract_all(r"'[^']*'|\"[^\"]*\"")
    listed = quoted.list.eval(pl.element().str.strip_chars("'\" ")).list.unique(maintain_order=True)
    table = given.drop_nulls().unique().to_frame().with_columns(labels=listed)
    listed = pl.col("labels")
    findings = listed.list.eval(pl.element().replace_strict(FINDING_OF, default=None, return_dtype=pl.String))
    incomplete = listed.list.set_intersection(list(INCOMPLETE)).list.len() > 0
    maybe = {f: listed.list.set_intersection(labels.split(", ")).list.len() > 0 for f, labels in MAYBE.items()}
    unknown = {f: incomplete | maybe.get(f, pl.lit(False)) for f in FINDINGS}
    normal = listed.list.set_difference([*INCOMPLETE, "normal"]).list.len() == 0
    table = table.with_columns(present=findings).with_columns(states(pl.col("present"), unknown, FINDINGS))
    known = [*FINDING_OF, *INCOMPLETE, "exclude"]
    return table.drop("present").with_columns(
        pl.when(~normal).then(0.0).otherwise("No Finding").cast(pl.Float32).alias("No Finding"),
        listed.list.filter(~pl.element().is_in(known)).list.first().alias("unknown label"),
        excluded=listed.list.contains("exclude"),
        labels=listed.list.filter(~pl.element().is_in(["", "unchanged"])),
    )


def _details(sentences: pl.Series) -> pl.DataFrame:
    """The details of every distinct LabelsLocalizationsBySentence that has any, keyed by that text."""
    texts = sentences.drop_nulls().unique(maintain_order=True)
    rows = [(text, *detail) for text in texts for detail in parse_details(text)]
    flat = pl.DataFrame(rows, schema=[sentences.name, "finding", "side", "site"], orient="row")
    flat = flat.with_columns(severity=pl.lit(None, pl.String)).cast(pl.String)
    detail = pl.struct("finding", "side", "site", "severity")
    return flat.group_by(sentences.name, maintain_order=True).agg(details=detail)


def parse_details(text: str) -> list[Detail]:
    """(finding, side, site) from one LabelsLocalizationsBySentence, e.g. ``[['pleural effusion', 'loc
    left']]``.

    Locations follow the label, or the labels, that they belong to. After several labels they are used only if
    all mean the same finding: the table does not say which of them is meant, and no site is invented.
    """
    details = (detail for sentence in text.split("]") for detail in _sentence(sentence))
    return list(dict.fromkeys(details))


@lru_cache(maxsize=1 << 16)
def _sentence(text: str) -> tuple[Detail, ...]:
    """The details of one sentence, which never depend on those before it."""
    details: list[Detail] = []
    labels: list[str] = []
    places: list[str] = []
    for word in (quoted.strip(" '\"") for quoted in _QUOTED.findall(text)):
        if word.startswith("loc "):
            places.append(word[4:])
            continue
        if places:
            details += _place(labels, places)
            labels, places = [], []
        labels.append(_SIDED.sub("", word))
    return tuple(details + _place(labels, places)) if places else tuple(details)


def _place(labels: list[str], places: list[str]) -> list[Detail]:
    """The details of labels that share their locations; none where they mean different findings."""
    labels = [label for label in labels if label in FINDING_OF and label != "normal"]
    subjects = {FINDING_OF[label] or label for label in labels}
    if len(subjects) != 1:
        return []
    known = [LOCATIONS[place] for place in places if place in LOCATIONS]
    named = [site for stem, site in _NAMED.items() if any(stem in label for label in labels)]
    known = [(side, None if site and any(n in site for n in named) else site) for side, site in known]
    sides = {side for side, site in known if side and not site}
    both = [(side, site) for side, site in known if side and site]
    sites = {site: None for side, site in known if site and not side and site not in {b for _, b in both}}
    # With both sides and several sites it is not said which site is on which side.
    unsaid = bool(both) or (len(sides) > 1 and len(sites) > 1)
    side = None if unsaid else "bilateral" if len(sides) > 1 else next(iter(sides), None)
    pairs = both + [(side, site) for site in sites] or [(side, None)]
    subject = subjects.pop()
    if subject in _MIDLINE:  # "left" there says which part of the heart is large
        return []
    return [(subject, side, site) for side, site in pairs if side or site]
