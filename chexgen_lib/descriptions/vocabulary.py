"""The words of radiologists: how they name findings, places and severities, and how they deny and doubt."""

import re
from functools import cache

# How reports name the findings (singular; a plural s is understood).
FINDING_WORDS = {
    "No Finding": "acute cardiopulmonary abnormality, acute cardiopulmonary disease, acute cardiopulmonary process, "
    "acute abnormality of the heart or lungs, acute cardiopulmonary finding, acute abnormality, acute disease, "
    "acute process, acute finding, acute pulmonary abnormality, acute pulmonary disease, acute pulmonary process, "
    "acute pulmonary finding, acute intrathoracic abnormality, acute intrathoracic process, "
    "acute intrathoracic disease, acute chest disease, acute thoracic abnormality, active disease, "
    "active cardiopulmonary disease, active pulmonary disease, active lung disease, active process, "
    "acute or active disease, abnormal finding, abnormality",
    "Enlarged Cardiomediastinum": "mediastinal widening, cardiomediastinal enlargement, widened mediastinum, "
    "widened superior mediastinum, mediastinal enlargement, superior mediastinal enlargement, mediastinal mass, "
    "enlarged mediastinum, prominent mediastinum, enlarged cardiomediastinum, enlarged cardiomediastinal silhouette, "
    "widening of the mediastinum, enlargement of the cardiomediastinal silhouette, enlargement of the mediastinum, "
    "enlargement of the cardiomediastinum",
    "Cardiomegaly": "cardiomegaly, cardiac enlargement, enlargement of the heart, enlarged heart, "
    "enlarged cardiac silhouette, enlarged cardiac shadow, enlargement of the cardiac silhouette, "
    "enlarged heart size, increased heart size, increased cardiothoracic ratio",
    "Lung Opacity": "opacity, lung opacity, pulmonary opacity, airspace opacity, infiltration, infiltrate, "
    "pulmonary infiltration, pulmonary infiltrate, airspace disease, alveolar pattern, interstitial pattern, "
    "reticular interstitial pattern, reticulonodular interstitial pattern, ground glass pattern, increased density, "
    "miliary opacities, opacification, density, parenchymal opacity, haziness, interstitial opacity, "
    "interstitial infiltrate, interstitial prominence",
    "Lung Lesion": "lung lesion, pulmonary lesion, lesion, lung nodule, nodule, multiple nodules, lung mass, "
    "pulmonary mass, mass, granuloma, calcified granuloma, lung metastasis, lung metastases, cavitation, abscess, "
    "lepidic adenocarcinoma, pulmonary nodule, nodularity, granulomata",
    "Edema": "pulmonary edema, edema, edema of the lungs, kerley line, interstitial edema, alveolar edema, "
    "fluid overload",
    "Consolidation": "consolidation, lung consolidation, air bronchogram, consolidative change, consolidated",
    "Pneumonia": "pneumonia, atypical pneumonia, bronchopneumonia, pneumonic infiltrate",
    "Atelectasis": "atelectasis, pulmonary atelectasis, atelectatic change, laminar atelectasis, lobar atelectasis, "
    "segmental atelectasis, total atelectasis, round atelectasis, basal atelectasis, collapse, atelectatic band",
    "Pneumothorax": "pneumothorax, hydropneumothorax, hemopneumothorax, pleural air, air in the pleural space",
    "Effusion": "pleural effusion, effusion, loculated pleural effusion, loculated fissural effusion, "
    "empyema, hemothorax, pleural fluid, fluid in the pleural space",
    "Pleural Other": "pleural abnormality, pleural disease, pleural disease other than fluid, pleural thickening, "
    "apical pleural thickening, calcified pleural thickening, pleural plaque, calcified pleural plaque, pleural mass, "
    "fissure thickening, minor fissure thickening, major fissure thickening, pleural scarring, pleural calcification",
    "Fracture": "fracture, bone fracture, rib fracture, callus rib fracture, rib fracture with callus, "
    "clavicle fracture, humeral fracture, vertebral fracture",
    "Support Devices": "support device, medical device, medical devices in place, implanted medical device, "
    "indwelling catheter, inserted tube, stent, spinal fusion, catheter, pacemaker, implanted defibrillator, "
    "nasogastric tube, endotracheal tube, tracheostomy tube, chest drain tube, gastrostomy tube, nephrostomy tube, "
    "ventriculoperitoneal drain tube, double j stent, central venous catheter, "
    "central venous catheter via jugular vein, central venous catheter via subclavian vein, "
    "central venous catheter via umbilical vein, reservoir central venous catheter, single chamber device, "
    "dual chamber device, electrical device, artificial heart valve, artificial mitral heart valve, "
    "artificial aortic heart valve, aortic endoprosthesis, endoprosthesis, osteosynthesis material, picc, picc line, "
    "port-a-cath, portacath, mediport, central line, central venous line, venous line, chest tube, feeding tube, "
    "enteric tube, gastric tube, et tube, ng tube, ett, tracheostomy, aicd, icd, defibrillator, stimulator, "
    "pacing lead, monitor lead, lead, generator, shunt, prosthetic valve, valve replacement, tubing, tube, line",
}
# Names that contain a finding's word and mean something else.
NO_FINDING_WORDS = (
    "subcutaneous emphysema, soft tissue mass, breast mass, mass of the breast, end on, cervical rib, "
    "calcified density, sclerotic bone lesion, lytic bone lesion, blastic bone lesion, pericardial effusion, "
    "vessel seen end on, heart valve, humeral prosthesis, increased attenuation, joint effusion, mass effect, "
    "bone density, costophrenic angle blunting, pleural line, septal line, fracture line, lead to, soft tissue edema, "
    "sclerotic lesion, lytic lesion, bony lesion, osseous lesion, thyroid mass, thyroid nodule, bony density, "
    "bone lesion, catheterization"
)
SITE_WORDS = {
    "upper lobe": "upper lobe",
    "middle lobe": "middle lobe",
    "lower lobe": "lower lobe",
    "lingula": "lingula, lingular",
    "upper lung field": "upper lung field, upper lung zone, upper zone",
    "middle lung field": "middle lung field, midlung, mid lung, midlung zone, mid lung zone",
    "lower lung field": "lower lung field, lower lung zone, lower zone",
    "base": "base, lung base",
    "apex": "apex, apices, lung apex",
    "hilum": "hilum, hila",
    "perihilar region": "perihilar region, perihilar",
    "retrocardiac region": "retrocardiac region, retrocardiac",
    "paratracheal region": "paratracheal region",
    "costophrenic angle": "costophrenic angle",
    "cardiophrenic angle": "cardiophrenic angle",
    "mediastinum": "mediastinum",
    "rib": "rib",
    "clavicle": "clavicle",
    "scapula": "scapula",
    "humerus": "humerus, humeri",
    "sternum": "sternum",
    "shoulder": "shoulder",
    "thoracic spine": "thoracic spine",
    "lumbar spine": "lumbar spine",
    "cervical spine": "cervical spine",
    "spine": "spine",
    "breast": "breast",
    "axilla": "axilla, axillae",
    "upper abdomen": "upper abdomen",
    "neck": "neck",
    "aorta": "aorta",
}
SIDE_WORDS = {
    "left": "left, left-sided",
    "right": "right, right-sided",
    "bilateral": "bilateral, both, both sides, bilaterally",
}
SEVERITY_WORDS = {
    "mild": "mild, slight, small, minimal, tiny, trace, minor, mildly, slightly, minimally",
    "moderate": "moderate, moderate-sized, moderately",
    "severe": "severe, marked, large, extensive, massive, severely, markedly",
}
# Cues that turn a statement -> (which way, where). "ahead": what follows the cue; "behind": what precedes it, if
# anything; "either": what follows directly, else what precedes it ("may represent edema", "edema may be present").
CUES = {
    ("denied", "ahead"): "no, without, absence of, negative for, free of, clear of, no evidence of, denies, neither, "
    "nor, resolution of, removal of, clearing of, rather than",
    ("denied", "behind"): "absent, resolved, excluded, ruled out, unlikely, cleared, removed, no longer seen",
    ("denied", "either"): "not, no longer",
    ("hedged", "ahead"): "possible, probable, questionable, question of, question, concern for, concerning for, "
    "suspicious for, suspicion for, cannot exclude, cannot rule out, not exclude, suggestive of, suggesting, suggest, "
    "versus, vs, history of, status post, evaluate for, exclude, differential, possibility of, favor, favoring, "
    "indeterminate, rule out, difficult to exclude, if, borderline",
    ("hedged", "behind"): "cannot be excluded, not excluded, not be excluded, not be entirely excluded, "
    "is suspected, is questioned",
    ("hedged", "either"): "may, might, could, possibly, probably, likely, suspected, questioned, perhaps, would",
}
# Words that look like a negation but are not one.
NO_NEGATIONS = (
    "no change, no significant change, no interval change, no significant interval change, without change, "
    "without significant change, no increase, not significantly changed, not changed, not only, no longer than, "
    "not well seen, not well evaluated, not well visualized, no comparison, to suggest, evidence to suggest"
)
# The finding after one of these explains the appearance before it, and takes over its side and severity.
EXPLAINS = ("consistent with", "compatible with", "representing", "related to", "due to", "secondary to")
BOUNDARIES = (",", ":", "/", "and", "or", "with", *EXPLAINS)
DEFINITIONS = "typically, appears as, appearing as, seen as, manifested as, manifesting as, characterized by"
# Boundaries that a negation or a doubt does not cross.
ENDS = (
    ";",
    "but",
    "however",
    "although",
    "though",
    "except",
    "except for",
    "other than",
    "aside from",
    "apart from",
    "which",
    "while",
    "there is",
    "there are",
)
_DOUBT = r"may|might|could|would|possibly|probably|likely|suggest\w*"
# Other wordings of the vocabulary above: pattern in a lower-case sentence -> its canonical words.
_LINK = (
    r"((?: (?:size|shadow|silhouette|contours?|margins?|is|are|was|were|has|been|appears?|remains?|to|be|not|no|longer|"
    r"least|again|still|stable|stably|overall|persistently|mildly|slightly|minimally|moderately|markedly|severely|"
    r"grossly|within|at|the|upper|limits|of|in|may|might|possibly|likely|probably|borderline|somewhat|mild|moderate|"
    r"severe|diffusely|and|unchanged|left|right|"
    r"bilateral|clearly|definitely|frankly|significantly))*?)"
)
_NORMAL = r"(?:normal|within normal limits?|unremarkable|top normal|not enlarged|normal limits)\b"
_HEART = r"(?:heart size|cardiac size|heart|cardiac silhouette|cardiac shadow|cardiac contours?|cardiothoracic ratio)"
_MEDIASTINUM = r"(?:(?:superior )?mediastinum|(?:cardio)?mediastinal (?:contours?|silhouette|shadow|width))"
_BONES = r"(?:ribs?|clavicle|humerus|scapula|sternum)"
# Each is tried only where one of its triggers occurs, because most sentences need none.
PHRASINGS = [
    ("xxxx", r"\bxxxx\b ?", ""),  # removed by Open-i's de-identification
    ("s/p", r"\bs/p\b", "status post"),
    (" to", rf"\b({_DOUBT})((?: \w+)?) (?:due|secondary|related) to\b", r"\1\2"),
    ("ble with|ent with", rf"\b({_DOUBT})((?: \w+)?) (?:compatible|consistent) with\b", r"\1\2"),
    ("air space|air-space", r"\bair[- ]space", "airspace"),
    ("parenchymal", r"\bpleural?[- ]parenchymal", "pleural"),
    ("bibas|biapical", r"\bbi(basilar|basal|apical)\b", r"bilateral \1"),
    ("normal|enlarged|unremarkable", rf"\b{_HEART}{_LINK} {_NORMAL}", "; no cardiomegaly ;"),
    ("normal", rf"\bnormal {_HEART}", "; no cardiomegaly ;"),
    (
        "enlarge|increased|large",
        rf"\b{_HEART}{_LINK} (?:enlarged|increased|enlargement|large)(?: in size)?\b",
        r"; \1 cardiomegaly",
    ),
    (
        "mediast",
        rf"\b{_MEDIASTINUM}{_LINK} (?:wide|widened|enlarged|prominent|broad|broadened|widening)\b",
        r"; \1 mediastinal widening",
    ),
    ("mediast", rf"\b{_MEDIASTINUM}{_LINK} {_NORMAL}", "; no mediastinal widening ;"),
    (
        "mediast",
        r"\b(?:prominence|widening|enlargement) of the (?:(?:superior|upper) )?mediastinum\b",
        "mediastinal widening",
    ),
    ("mediast", r"\bprominent mediastinal (?:contours?|silhouette)\b", "mediastinal widening"),
    ("clear", rf"\blungs?{_LINK} clear(?! of\b)(?: bilaterally)?\b", "; no lung opacity ;"),
    ("clear", r"\bclear lungs\b", "; no lung opacity ;"),
    ("fractured|broken", rf"\b({_BONES})((?: \w+)*?){_LINK} (?:fractured|broken)\b", r"; \2\3 fracture of the \1"),
    ("fractured", rf"\bfractured ((?:left |right )?(?:\w+ )?{_BONES})\b", r"fracture of the \1"),
    ("thicken", r"\bthickening (?:of|in) the (?:(minor|major) )?fissures?\b", r"\1 fissure thickening"),
    ("thicken", r"\bpleura((?: \w+)*?) (?:is|are|appears?) ((?:\w+ ){0,3}?)thickened", r"\1 \2 pleural thickening"),
    ("thicken", r"\bthicken(?:ing of the|ed)((?: \w+){0,3}?) pleura\b", r"\1 pleural thickening"),
    (
        "blunting of",
        r"\bblunting of the((?: left| right| both)?)(?: lateral| posterior)? costophrenic (?:angles?|sulc\w+)",
        r"\1 costophrenic angle blunting",
    ),
    (
        "normal",
        r"\bnormal chest\b(?! wall)|\bnormal (?:chest )?(?:radiograph|examination|study|x-ray)\b",
        "no acute abnormality",
    ),
]
# A label's word -> how a description may word it.
_SAME = {
    "cicatrix": "scarring",
    "calcinosis": "calcification",
    "vertebrae": "spine",
    "vertebral": "spine",
    "pectum": "pectus",
    "bullas": "bulla",
    "bullae": "bulla",
    "pneumoperitoneo": "pneumoperitoneum",
    "mediastinic": "mediastinal",
    "humeral": "humerus",
    "shadow": "silhouette",
    "pneumothorace": "pneumothorax",
    "atelectase": "atelectasis",
    "oedema": "edema",
    "basal": "base",
    "basilar": "base",
    "apical": "apex",
    "hilar": "hilum",
}
# Words that any sentence may contain.
FRAME = frozenset(
    "a an and of the in on at to via for finding impression show shows demonstrate demonstrates reveal reveals "
    "examination there is are be also noted seen radiograph image film stated x-ray chest evident visible present "
    "this study include includes".split()
)


@cache
def singular(token: str) -> str:
    """A word in the singular, and in the spelling that labels and descriptions share."""
    if token.endswith("ies"):
        token = token[:-3] + "y"
    elif token.endswith("sses"):
        token = token[:-2]
    elif len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "is", "us")):
        token = token[:-1]
    return _SAME.get(token, token)


@cache
def words_in(label: str) -> frozenset[str]:
    return frozenset(singular(token) for token in re.findall(r"[a-z0-9][a-z0-9'-]*", label.lower().replace("_", " ")))
