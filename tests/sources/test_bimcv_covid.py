"""BIMCV-COVID19: what file names say, PadChest's labels per session, several iterations in one folder."""

import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import bimcv_covid, registry

PNG = "sub-S03169/ses-E07193/mod-rx/sub-S03169_ses-E07193_run-1_bp-chest_vp-{}.png"
HEADER = (
    "PatientID\tReportID\tReport\tLabels\tLocalizations\tLabelsLocalizationsBySentence\tlabelCUIS\tLocalizationsCUIS"
)
PEOPLE = "participant\tmodality_dicom\tbody_parts\tage\tgender\nsub-S03169\t['CR', 'DX']\t[['chest']]\t[80, 81]\tM\n"


def session(name: str, labels: str, places: str = "", report: str = "sin hallazgos .") -> str:
    return "\t".join(["sub-S03169", name, report, labels, "[]", places, "[]", "[]"])


def write(folder, images: list[str], *sessions: str, people=PEOPLE, table="labels_covid_posi.tsv", encoding="utf-8"):
    (folder / "derivatives/labels").mkdir(parents=True, exist_ok=True)
    (folder / "derivatives/labels" / table).write_bytes(("\n".join([HEADER, *sessions]) + "\n").encode(encoding))
    (folder / "participants.tsv").write_text(people)
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).touch()
    return folder


def one(folder, labels: str, places: str = "", view: str = "ap_cr") -> dict:
    """The Record of a folder with one image."""
    df, rejects = bimcv_covid.load(write(folder, [PNG.format(view)], session("ses-E07193", labels, places)))
    assert rejects.is_empty()
    return records.validate(df).to_dicts()[0]


def test_record(tmp_path):
    places = "[['pleural effusion', 'loc pleural', 'loc left'], ['cardiomegaly']]"
    row = one(tmp_path, "['pleural effusion', ' cardiomegaly']", places)
    assert row["image_id"] == "bimcv_covid:sub-S03169_ses-E07193_run-1_bp-chest_vp-ap_cr"
    assert (row["patient_id"], row["study_id"]) == ("bimcv_covid:sub-S03169", "bimcv_covid:ses-E07193")
    assert (row["age"], row["sex"], row["view"], row["report"]) == (80, "M", "AP", "sin hallazgos .")
    assert (row["Effusion"], row["Cardiomegaly"], row["Fracture"], row["No Finding"]) == (1, 1, 0, 0)
    assert row["details"] == [{"finding": "Effusion", "side": "left", "site": None, "severity": None}]


@pytest.mark.parametrize(
    ("tag", "view"), [("pa_dx", "PA"), ("ap_dx", "AP"), ("ll_cr", "LATERAL"), ("lat_cr", "LATERAL")]
)
def test_views(tmp_path, tag, view):
    assert one(tmp_path, "['normal']", view=tag)["view"] == view


def test_labels_between_tabs(tmp_path):
    row = one(tmp_path, "\"['pneumothorax'\t 'pneumonia']\"")  # quoted, as in the first iteration
    assert (row["Pneumothorax"], row["Pneumonia"], row["labels"]) == (1, 1, ["pneumothorax", "pneumonia"])


@pytest.mark.parametrize("labels", ["[pneumonia, COVID 19]", "[]"])
def test_labels_that_are_no_list_of_quoted_names_deny_nothing(tmp_path, labels):
    df, rejects = bimcv_covid.load(write(tmp_path, [PNG.format("ap_cr")], session("ses-E07193", labels)))
    assert df.is_empty() and rejects["reason"].to_list() == ["no labels"]


def test_covid_leaves_open_what_it_rests_on(tmp_path):
    row = one(tmp_path, "['COVID 19']")
    assert (row["Pneumonia"], row["Lung Opacity"], row["Effusion"], row["No Finding"]) == (None, None, 0, 0)
    assert row["labels"] == ["COVID 19"]


def test_normal(tmp_path):
    row = one(tmp_path, "['normal']")
    assert row["No Finding"] == 1 and row["Edema"] == 0


def test_normal_with_a_pathology_is_listed(tmp_path):
    row = one(tmp_path, "['normal', 'pneumothorax']")
    assert (row["No Finding"], row["Pneumothorax"]) == (0, 1)
    assert bimcv_covid.repairs(tmp_path)["field"].to_list() == ["No Finding"]


def test_unknown_label_denies_nothing_and_is_listed(tmp_path):
    row = one(tmp_path, "['pneumothorax', 'crazy paving']")
    assert (row["Pneumothorax"], row["Edema"]) == (1, None)
    assert bimcv_covid.repairs(tmp_path).select("field", "value").rows() == [("labels", "crazy paving")]


def test_a_session_that_two_tables_label_differently_is_rejected(tmp_path):
    sessions = (session("ses-E07193", "['normal']"), session("ses-E07193", "['pneumonia']"))
    for name, text in zip(("one", "two"), sessions, strict=True):
        write(tmp_path / name, [PNG.format("pa_dx")] * (name == "one"), text)
    df, rejects = bimcv_covid.load(tmp_path)
    assert df.is_empty() and rejects["reason"].to_list() == ["tables differ in the labels of ses-E07193"]
    write(tmp_path / "two", [], sessions[0])  # the same twice is no dispute
    assert bimcv_covid.load(tmp_path)[0].height == 1


def test_iterations_side_by_side(tmp_path):
    """As unpacked: the tables of two archives, the first report of a session wins, a CT is no row."""
    write(tmp_path / "covid19_posi", [PNG.format("pa_dx")], session("ses-E07193", "['normal']"))
    other = PNG.replace("S03169", "S9").replace("E07193", "E9").format("ap_cr")
    (tmp_path / "covid19_posi/sub-S03169/ses-E07193/mod-ct").mkdir()
    (tmp_path / "covid19_posi/sub-S03169/ses-E07193/mod-ct/x.nii.gz").touch()
    sessions = [session("ses-E9", "['pneumonia']"), session("ses-E9", "['normal']")]
    write(
        tmp_path / "neg", [other], *sessions, table="Labels_covid_NEG_JAN21.tsv", people=PEOPLE.replace("S03169", "S9")
    )
    df, rejects = bimcv_covid.load(tmp_path)
    assert (df.height, rejects.height) == (2, 0)
    assert df["Pneumonia"].to_list() == [0, 1] and df["age"].to_list() == [80, 80]
    assert df["image"].to_list() == [f"covid19_posi/{PNG.format('pa_dx')}", f"neg/{other}"]


def test_all_images_in_one_folder(tmp_path):
    """A mirror: names tell patient, session and view, as in the release; derivatives and CT are no radiographs."""
    name = PNG.format("pa_dx").rpartition("/")[2]
    write(
        tmp_path, [f"images/{name}", f"derivatives/rois/{name}", f"mod-ct/{name}"], session("ses-E07193", "['normal']")
    )
    (tmp_path / "derivatives/labels/labels_covid_posi.tsv").rename(tmp_path / "labels_covid_posi.tsv")
    df, rejects = bimcv_covid.load(tmp_path)
    assert rejects.is_empty() and df.select("image", "view", "age").rows() == [(f"images/{name}", "PA", 80)]
    assert df["image_id"].to_list() == [f"bimcv_covid:{name.removesuffix('.png')}"]


def test_rejects_add_up(tmp_path):
    abdomen = PNG.format("ap_cr").replace("bp-chest", "bp-abdomen")
    unreported = PNG.replace("E07193", "E1").format("pa_dx")
    excluded = PNG.replace("E07193", "E2").format("pa_dx")
    unlabelled = PNG.replace("E07193", "E3").format("pa_dx")
    images = [PNG.format("pa_dx"), f"again/{PNG.format('pa_dx')}", abdomen, unreported, excluded, unlabelled]
    images += ["sub-S1/ses-E1/mod-rx/scan.png"]
    sessions = [session("ses-E07193", "['normal']"), session("ses-E2", "['exclude']"), session("ses-E3", "")]
    df, rejects = bimcv_covid.load(write(tmp_path, images, *sessions))
    assert df.height + rejects.height == len(images)
    assert sorted(rejects["reason"]) == [
        "body part 'abdomen'",
        "duplicate image id",
        "file name without sub-S... and ses-E...",
        "no labels",
        "no labels of ses-E1",
        "study excluded by the dataset",
    ]


def test_ages_and_sexes_that_cannot_be_used(tmp_path):
    people = PEOPLE.replace("[80, 81]", "['412']").replace("\tM\n", "\t?\n")
    folder = write(tmp_path, [PNG.format("xx_cr")], session("ses-E07193", "['normal']"), people=people)
    df, _ = bimcv_covid.load(folder)
    assert df.select("age", "sex", "view").row(0) == (None, None, None)
    rows = bimcv_covid.repairs(folder).select("field", "value").rows()
    assert rows == [("age", "412"), ("sex", "?"), ("view", "xx")]


def test_latin_1_report(tmp_path):
    text = session("ses-E07193", "['normal']", report="t\xf3rax")
    df, _ = bimcv_covid.load(write(tmp_path, [PNG.format("pa_dx")], text, encoding="latin-1"))
    assert df["report"].to_list() == ["t\xf3rax"]


def test_comma_separated_table(tmp_path):
    folder = write(tmp_path, [PNG.format("pa_dx")])
    table = folder / "derivatives/labels/labels_covid_posi.tsv"
    table.write_text(table.read_text().replace("\t", ","))
    with pytest.raises(RecordError, match="labels_covid_posi.tsv.*tab-separated"):
        bimcv_covid.load(folder)


def test_participants_under_other_names_are_refused(tmp_path):
    people = PEOPLE.replace("sub-S03169", "S03169")
    with pytest.raises(
        RecordError, match="participants.tsv: its ids are not written as the dataset's, 'S03169' here, 'sub-S03169'"
    ):
        bimcv_covid.load(write(tmp_path, [PNG.format("ap_cr")], session("ses-E07193", "['normal']"), people=people))


def test_no_images(tmp_path):
    with pytest.raises(RecordError, match="holds no .*png"):
        bimcv_covid.load(write(tmp_path, []))


def test_the_headers_without_which_no_image_is_shown_are_missed(tmp_path):
    png = write(tmp_path / "bimcv_covid", [PNG.format("ap_cr")], session("ses-E07193", "['normal']")) / PNG.format(
        "ap_cr"
    )
    png.write_bytes(b"\x89PNG")
    report, ready = registry.check("bimcv_covid", tmp_path)
    assert not ready and "sub-*_ses-*.json (DICOM headers: window and polarity" in report
    png.with_suffix(".json").write_text("{}")
    assert registry.check("bimcv_covid", tmp_path)[1]
