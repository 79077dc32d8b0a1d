"""What PadChest's labels and locations mean; BIMCV-COVID19 uses the same."""

import re
from functools import lru_cache

Detail = tuple[str, str | None, str | None]  # finding or label, side, site
_LABELS: dict[str | None, str] = {
    "No Finding": "normal",
    "Enlarged Cardiomediastinum": "mediastinal enlargement, superior mediastinal enlargement, mediastinal mass",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "infiltrates, alveolar pattern, interstitial pattern, reticular interstitial pattern, "
    "reticulonodular interstitial pattern, ground glass pattern, increased density, miliary opacities",
    "Lung Lesion": "nodule, multiple nodules, pulmonary mass, granuloma, calcified granuloma, lung metastasis, "
    "lepidic adenocarcinoma, cavitation, abscess",
    "Edema": "pulmonary edema, kerley lines",
    "Consolidation": "consolidation, air bronchogram",
    "Pneumonia": "pneumonia, atypical pneumonia",
    "Atelectasis": "atelectasis, laminar atelectasis, lobar atelectasis, segmental atelectasis, total atelectasis, "
    "round atelectasis, atelectasis basal",
    "Pneumothorax": "pneumothorax, hydropneumothorax",
    "Effusion": "pleural effusion, loculated pleural effusion, loculated fissural effusion, empyema",
    "Pleural Other": "pleural thickening, apical pleural thickening, calcified pleural thickening, pleural plaques, "
    "calcified pleural plaques, pleural mass, fissure thickening, minor fissure thickening, major fissure thickening",
    "Fracture": "fracture, rib fracture, callus rib fracture, clavicle fracture, humeral fracture, vertebral fracture",
    "Support Devices": "NSG tube, endotracheal tube, tracheostomy tube, chest drain tube, gastrostomy tube, "
    "nephrostomy tube, ventriculoperitoneal drain tube, double J stent, catheter, central venous catheter, "
    "central venous catheter via jugular vein, central venous catheter via subclavian vein, "
    "central venous catheter via umbilical vein, reservoir central venous catheter, pacemaker, single chamber device, "
    "dual chamber device, dai, electrical device, artificial heart valve, artificial mitral heart valve, "
    "artificial aortic heart valve, aortic endoprosthesis, endoprosthesis, osteosynthesis material",
    None: "COPD signs, aortic elongation, supra aortic elongation, ascendent aortic elongation, "
    "descendent aortic elongation, aortic button enlargement, aortic atheromatosis, aortic aneurysm, "
    "right sided aortic arch, scoliosis, kyphosis, chronic changes, costophrenic angle blunting, air trapping, "
    "vertebral degenerative changes, vascular hilar enlargement, hilar enlargement, hilar congestion, fibrotic band, "
    "sternotomy, bronchiectasis, hemidiaphragm elevation, hiatal hernia, heart insufficiency, volume loss, "
    "vertebral anterior compression, vertebral compression, pseudonodule, bronchovascular markings, hypoexpansion, "
    "hypoexpansion basal, nipple shadow, suture material, diaphragmatic eventration, calcified densities, metal, "
    "goiter, emphysema, mastectomy, pulmonary fibrosis, gynecomastia, osteopenia, osteoporosis, tuberculosis, "
    "tuberculosis sequelae, flattened diaphragm, calcified adenopathy, adenopathy, calcified mediastinal adenopathy, "
    "mammary prosthesis, tracheal shift, sclerotic bone lesion, bullas, hyperinflated lung, azygos lobe, surgery, "
    "surgery neck, surgery breast, surgery lung, surgery heart, surgery humeral, axial hyperostosis, "
    "pectum excavatum, pectum carinatum, mediastinic lipomatosis, lipomatosis, "
    "non axial articular degenerative changes, vascular redistribution, central vascular redistribution, "
    "end on vessel, thoracic cage deformation, post radiotherapy changes, subcutaneous emphysema, air fluid level, "
    "pulmonary artery enlargement, pulmonary hypertension, pulmonary artery hypertension, "
    "pulmonary venous hypertension, lung vascular paucity, costochondral junction hypertrophy, "
    "sternoclavicular junction hypertrophy, bone metastasis, heart valve calcified, humeral prosthesis, prosthesis, "
    "cervical rib, soft tissue mass, breast mass, mass, asbestosis signs, abnormal foreign body, "
    "external foreign body, blastic bone lesion, lytic bone lesion, pneumoperitoneo, pneumomediastinum, "
    "azygoesophageal recess shift, mediastinal shift, obesity, calcified fibroadenoma, subacromial space narrowing, "
    "respiratory distress, lymphangitis carcinomatosa, Chilaiditi sign, dextrocardia, bone cement, cyst, "
    "pericardial effusion, esophagic dilatation",
}
FINDING_OF: dict[str, str | None] = {
    label: finding for finding, labels in _LABELS.items() for label in labels.split(", ")
}
# Not about the image's content: compared with an earlier study, or badly taken. Nothing is absent for lack of a label
# there, because the report did not go through the findings.
INCOMPLETE = ("unchanged", "suboptimal study", "")
# A finding that may be there although its own label is not, because one of these is.
MAYBE = {
    "Lung Opacity": "pneumonia, atypical pneumonia, consolidation, air bronchogram, atelectasis, lobar atelectasis, "
    "total atelectasis, segmental atelectasis, laminar atelectasis, atelectasis basal, pulmonary edema, "
    "pulmonary mass, nodule, multiple nodules, lung metastasis, cavitation, abscess, volume loss, pulmonary fibrosis, "
    "tuberculosis, calcified densities, lymphangitis carcinomatosa",
    "Lung Lesion": "mass, pseudonodule, calcified densities, tuberculosis, cyst",
    "Edema": "hilar congestion, vascular redistribution, central vascular redistribution, heart insufficiency, "
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
    "subsegmental, infradiaphragm, column, subclavian vein, bone, pectoral, supra aortic, nipple, cervical, fissure, "
    "lung field, gastric chamber, minor fissure, major fissure, soft tissue, aortic button, subcutaneous, "
    "paravertebral, shoulder, pulmonary artery, paracardiac, esophageal, brachiocephalic veins, peribronchi, "
    "subpleural, aortopulmonary window, gallbladder, glenohumeral joint, thymus, extrapleural, intersomatic space, "
    "paramediastinum, rotator cuff, acromioclavicular joint, coronary, extrapulmonary, epigastric, costoesternal, "
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


def parse_details(text: str) -> list[Detail]:
    """(finding, side, site) from one LabelsLocalizationsBySentence, e.g. `[['pleural effusion', 'loc left']]`.

    Locations follow the label, or the labels, that they belong to. After several labels they are used only if all mean
    the same finding: the table does not say which of them is meant, and no site is invented.
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
    # With both sides and several sites it is not stated which site is on which side.
    unsaid = bool(both) or (len(sides) > 1 and len(sites) > 1)
    side = None if unsaid else "bilateral" if len(sides) > 1 else next(iter(sides), None)
    pairs = both + [(side, site) for site in sites] or [(side, None)]
    subject = subjects.pop()
    if subject in _MIDLINE:  # "left" there tells which part of the heart is large
        return []
    return [(subject, side, site) for side, site in pairs if side or site]
