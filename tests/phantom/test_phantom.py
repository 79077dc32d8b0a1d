"""The embedded cohort's renderer: pure, aligned with its masks, graded, strict about its input."""

import numpy as np
import pytest
from scipy import ndimage

from chexgen_lib.phantom import anatomy, findings, patient
from chexgen_lib.phantom.render import PhantomError, Radiograph, render, render_many
from chexgen_lib.records import FINDINGS, OPACITIES, SEVERITIES

PATHOLOGIES = tuple(finding for finding in FINDINGS if finding != "No Finding")
SIDED = tuple(f for f in PATHOLOGIES if f not in (*findings.MIDLINE, "Support Devices"))
# Findings that do not move the rest of the chest; the others are compared where nothing moved.
STILL = tuple(f for f in SIDED if f not in ("Atelectasis", "Pneumothorax"))


def record(number: int = 0, side: str | None = None, severity: str | None = None, place: str | None = None, **changes):
    """A Record as a dict; a finding's name with underscores sets it."""
    shown = {key.replace("_", " "): value for key, value in changes.items() if key.replace("_", " ") in FINDINGS}
    details = [dict(finding=f, side=side, site=place, severity=severity) for f, state in shown.items() if state == 1]
    base = dict(image_id=f"i{number}", patient_id=f"p{number}", source="test", view="PA", age=55.0, sex="M")
    rest = {key: value for key, value in changes.items() if key.replace("_", " ") not in FINDINGS}
    return base | dict(details=details) | shown | rest


def with_finding(finding: str, number: int = 0, **changes) -> Radiograph:
    return render(record(number, **{finding.replace(" ", "_"): 1}, **changes))


@pytest.fixture(scope="module")
def plain() -> dict[int, Radiograph]:
    return {number: render(record(number)) for number in range(3)}


def same(a: Radiograph, b: Radiograph) -> bool:
    masks = a.masks.keys() == b.masks.keys() and all(np.array_equal(a.masks[k], b.masks[k]) for k in a.masks)
    return (
        np.array_equal(a.image, b.image) and masks and (a.boxes, a.severity, a.truth) == (b.boxes, b.severity, b.truth)
    )


def test_shape_range_and_type():
    for size in (64, 128):
        radiograph = render(record(Effusion=1), size)
        assert radiograph.image.shape == (size, size) and radiograph.image.dtype == np.float32
        assert 0 <= radiograph.image.min() and radiograph.image.max() <= 1
        assert radiograph.image.std() > 0.1
        assert {"lungs", "heart", "ribs", "Effusion"} == set(radiograph.masks)
        assert all(mask.shape == (size, size) and mask.dtype == bool for mask in radiograph.masks.values())


def test_pure_in_any_order_and_any_process():
    rows = [record(n, view=view, Pneumonia=1) for n, view in enumerate(("PA", "AP", "LATERAL"))]
    state = np.random.get_state()[1].copy()
    once = [render(row) for row in rows]
    again = [render(row) for row in reversed(rows)][::-1]
    spread = list(render_many(rows, workers=2))
    assert all(map(same, once, again)) and all(map(same, once, spread))
    assert np.array_equal(np.random.get_state()[1], state), "the global generator was used"


def test_order_is_kept_and_extra_keys_are_ignored():
    rows = [record(n) | {"description": "x", "split": "train", "qc": None} for n in range(4)]
    for row, radiograph in zip(rows, render_many(rows, size=64, workers=2), strict=True):
        assert same(radiograph, render(row, 64))
    assert list(render_many([], size=64)) == []


def test_patients_and_radiographs_differ(plain):
    assert np.abs(plain[0].image - plain[1].image).mean() > 0.02
    another_shot = render(record(0, image_id="another"))
    assert 0.002 < np.abs(plain[0].image - another_shot.image).mean()
    older = render(record(0, age=88.0))
    woman = render(record(0, sex="F"))
    assert np.abs(older.image - plain[0].image).mean() > 0.002
    assert np.abs(woman.image - plain[0].image).mean() > 0.002


def test_views_and_sites_differ():
    images = {view: render(record(view=view)) for view in ("PA", "AP", "LATERAL")}
    for one, two in (("PA", "AP"), ("PA", "LATERAL"), ("AP", "LATERAL")):
        assert np.abs(images[one].image - images[two].image).mean() > 0.02
    ratio = {view: _width(r.masks["heart"]) / _width(r.masks["lungs"]) for view, r in images.items()}
    assert ratio["AP"] > ratio["PA"], "the heart is larger in AP"
    assert np.array_equal(render(record(view="AP SUPINE")).image, images["AP"].image)
    a, b = (render(record(site=site)).image for site in "AB")
    assert np.abs(a - b).mean() > 0.02


def _width(mask: np.ndarray) -> int:
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def test_structures_are_where_they_belong():
    for number in range(6):
        r = render(record(number, sex="MF"[number % 2], age=20.0 + 12 * number, view=("PA", "AP")[number // 3]))
        lungs, heart, ribs = (r.masks[name] for name in ("lungs", "heart", "ribs"))
        assert 0.2 < lungs.mean() < 0.6 and 0.04 < heart.mean() < 0.2 and 0.15 < ribs.mean() < 0.7
        rows, columns = np.nonzero(heart)
        middle = np.nonzero(lungs)[1].mean()
        assert columns.mean() > middle, "the heart lies to the patient's left, the image's right"
        assert rows.mean() > np.nonzero(lungs)[0].mean() - 5
        outside = ~ndimage.binary_dilation(lungs, iterations=3)
        assert r.image[lungs & ~heart].mean() < r.image[outside & (r.image > 0.1)].mean(), "lungs are dark"
        assert 0.38 < _width(heart) / _width(lungs) < 0.62


@pytest.mark.parametrize("finding", PATHOLOGIES)
def test_image_changes_where_the_mask_is(finding, plain):
    """At least 80 % of the change lies within 4 pixels of the mask; where a finding moves the chest (volume
    loss, a larger heart), the change inside the mask is at least twice that outside."""
    shares, ratios = [], []
    for number in (0, 1):
        shown = with_finding(finding, number, severity="severe", side="left")
        change = (shown.image - plain[number].image) ** 2
        mask = shown.masks[finding]
        near = ndimage.binary_dilation(mask, iterations=4)
        assert mask.any() and change[mask].max() > 0.05**2
        shares.append(change[near].sum() / change.sum())
        ratios.append(change[mask].mean() / change[~near].mean())
    assert min(ratios) > 2
    if finding in STILL or finding == "Support Devices":
        assert min(shares) > 0.8, shares


@pytest.mark.parametrize("finding", SIDED)
def test_side_is_followed(finding, plain):
    for side in ("left", "right"):
        shown = with_finding(finding, 1, side=side, severity="moderate")
        columns = np.nonzero(shown.masks[finding])[1]
        middle = np.nonzero(plain[1].masks["lungs"])[1].mean()
        assert (columns.mean() > middle) == (side == "left"), "the patient's left is at the image's right"
        box = next(box for box in shown.boxes if box["finding"] == finding)
        assert (box["x"] + box["w"] / 2 > middle / 128) == (side == "left")


@pytest.mark.parametrize("finding", PATHOLOGIES)
def test_severity_grows(finding, plain):
    shown = [with_finding(finding, 0, side="right", severity=severity) for severity in SEVERITIES]
    score = [radiograph.severity[finding] for radiograph in shown]
    change = [((radiograph.image - plain[0].image) ** 2).sum() for radiograph in shown]
    assert 0 < score[0] < score[1] < score[2] <= 1
    assert change[0] < change[1] < change[2]


def test_site_is_followed():
    rows = {}
    for site in ("upper lobe", "lower lobe"):
        mask = with_finding("Consolidation", 0, side="right", severity="moderate", place=site).masks["Consolidation"]
        rows[site] = np.nonzero(mask)[0].mean()
    assert rows["upper lobe"] + 20 < rows["lower lobe"]


def test_bilateral_finding_is_on_both_sides():
    mask = with_finding("Effusion", 0, side="bilateral", severity="severe").masks["Effusion"]
    assert mask[:, :45].any() and mask[:, 83:].any()


def test_effusion_fills_from_below_and_pneumothorax_is_darker(plain):
    fluid = with_finding("Effusion", 0, side="left", severity="severe")
    assert np.nonzero(fluid.masks["Effusion"])[0].mean() > np.nonzero(plain[0].masks["lungs"])[0].mean()
    assert fluid.image[fluid.masks["Effusion"]].mean() > plain[0].image[fluid.masks["Effusion"]].mean() + 0.1
    air = with_finding("Pneumothorax", 0, side="left", severity="severe")
    assert air.image[air.masks["Pneumothorax"]].mean() < plain[0].image[air.masks["Pneumothorax"]].mean() - 0.03


def test_heart_and_mediastinum_widen(plain):
    large = with_finding("Cardiomegaly", 0, severity="severe")
    assert _width(large.masks["heart"]) > 1.15 * _width(plain[0].masks["heart"])
    assert np.array_equal(large.masks["Cardiomegaly"], large.masks["heart"])
    name = "Enlarged Cardiomediastinum"
    assert _width(with_finding(name, severity="severe").masks[name]) > _width(
        with_finding(name, severity="mild").masks[name]
    )


def test_details_of_other_labels_are_ignored(plain):
    hernia = dict(finding="Hernia", side="left", site=None, severity="severe")
    assert np.array_equal(render(record(0, details=[hernia])).image, plain[0].image)


def test_boxes_hold_their_masks():
    everything = {finding.replace(" ", "_"): 1 for finding in PATHOLOGIES}
    for view in ("PA", "LATERAL"):
        r = render(record(3, view=view, **everything))
        boxed = {box["finding"]: box for box in r.boxes}
        assert set(boxed) == {f for f in PATHOLOGIES if f in r.masks and r.masks[f].any()} and len(boxed) >= 11
        for finding, box in boxed.items():
            x, y, w, h = (box[k] for k in "xywh")
            assert 0 <= x < x + w <= 1 and 0 <= y < y + h <= 1
            rows, columns = np.nonzero(r.masks[finding])
            assert (x * 128, y * 128) == (columns.min(), rows.min())
            assert ((x + w) * 128, (y + h) * 128) == (columns.max() + 1, rows.max() + 1)


def test_truth_follows_the_record():
    normal = render(record(Effusion=0, Edema=None, Fracture=float("nan")), 32)
    assert normal.truth == {f: int(f == "No Finding") for f in FINDINGS} and not normal.boxes
    device = render(record(Support_Devices=1), 32)
    assert device.truth["No Finding"] == device.truth["Support Devices"] == 1
    for finding in OPACITIES:
        shown = render(record(**{finding.replace(" ", "_"): 1}), 64)
        assert shown.truth["Lung Opacity"] == shown.truth[finding] == 1 and shown.truth["No Finding"] == 0
        assert np.array_equal(shown.masks["Lung Opacity"], shown.masks[finding])
    assert set(render(record(Lung_Opacity=1), 32).masks) == {"lungs", "heart", "ribs", "Lung Opacity"}


def test_uncertain_findings_are_shown_half_the_time():
    drawn = [patient.rng("uncertain", "Effusion", f"i{n}").random() < 0.5 for n in range(200)]
    assert 70 < sum(drawn) < 130
    for number in (drawn.index(True), drawn.index(False)):
        r = render(record(number, uncertain=["Effusion"]), 32)
        assert r.truth["Effusion"] == ("Effusion" in r.masks) == drawn[number]


def test_a_finding_leaves_the_random_choices_of_others_alone():
    plans = [findings.plan(record(5, Edema=1, **more), "Edema") for more in ({}, {"Effusion": 1})]
    assert [p["side"] for p in plans[0]] == [p["side"] for p in plans[1]]
    assert plans[0][0]["random"].random() == plans[1][0]["random"].random()


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        (dict(view="SWIMMER"), 64, "view 'SWIMMER'"),
        (dict(view=None), 64, "view missing"),
        (dict(patient_id=None), 64, "patient_id missing"),
        (
            dict(details=[dict(finding="Effusion", side="upper", site=None, severity=None)]),
            64,
            "side 'upper'",
        ),
        (
            dict(details=[dict(finding="Effusion", side=None, site=None, severity="huge")]),
            64,
            "severity 'huge'",
        ),
        (dict(site="C"), 64, "site 'C'"),
        ({}, 31, "size 31"),
        ({}, 1025, "size 1025"),
        ({}, 64.0, "size 64.0"),
    ],
)
def test_bad_records_name_the_record_and_the_field(changes, size, words):
    row = record(7)
    row.update(changes)
    with pytest.raises(PhantomError, match=f"record i7: .*{words}"):
        render(row, size)


def test_a_failure_among_many_names_its_record():
    rows = [record(0), record(1, view="NOWHERE"), record(2)]
    with pytest.raises(PhantomError, match="record i1"):
        list(render_many(rows, size=32, workers=2))
    broken = record(1)
    broken["age"] = "old"
    with pytest.raises(PhantomError, match="record i1"):
        list(render_many([broken], size=32, workers=0))


def test_the_contrast_medium_of_the_ct_is_removed():
    """The shipped CT has a median of 331 HU in the heart and 1,262 HU in the superior vena cava."""
    chest = anatomy.load()
    for vessel in (anatomy.HEART, anatomy.AORTA, anatomy.SVC):
        inside = chest.mu[chest.labels == vessel]
        assert np.median(inside) == pytest.approx(1.05, abs=0.01) and inside.max() < 1.07, vessel
    assert (chest.mu > 1.3).any()  # bone keeps its own


def test_contrast_medium_is_told_from_bone_and_the_table_from_the_body():
    hounsfield, bone = np.full((12, 30, 30), -1000.0), np.zeros((12, 30, 30), bool)
    hounsfield[:, 5:20, 5:25] = 40  # the body
    hounsfield[:, 8:12, 8:12], hounsfield[:, 14:18, 14:18] = 900, 900  # a vessel, a bone
    bone[:, 14:18, 14:18] = True
    hounsfield[:, 26:28] = 200  # the table
    mu = anatomy._attenuation(hounsfield, bone)
    assert mu[6, 10, 10] == pytest.approx(1.05) and mu[6, 16, 16] > 2.5
    assert mu[6, 6, 20] == pytest.approx(1.04) and not mu[:, 26:28].any()


def test_the_heart_is_as_wide_as_the_surprises_say():
    chest = anatomy.load()
    inner = np.flatnonzero(np.isin(chest.labels, anatomy.LUNGS).any((0, 1)))
    heart = np.flatnonzero((chest.labels == anatomy.HEART).any((0, 1)))
    assert np.ptp(heart) / np.ptp(inner) == pytest.approx(0.52, abs=0.02)
