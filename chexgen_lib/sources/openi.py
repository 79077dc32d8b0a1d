"""Open-i / Indiana University (Demner-Fushman et al. 2016): 3,955 reports by radiologists, 7,470 radiographs.

`report` and `impression` are the FINDINGS and IMPRESSION sections verbatim (XXXX: removed by the dataset's
de-identification). `labels` are the MeSH headings that human indexers gave each report, for example
`Opacity/lung/base/left/streaky`; `parse_heading` takes one apart.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import polars as pl
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from chexgen_lib.records import FINDINGS, FRONTAL, MAX_AGE, SCHEMA, RecordError, conform
from chexgen_lib.sources import openi_tables
from chexgen_lib.sources.columns import contradicted, no_finding, states
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, every, located
from chexgen_lib.sources.mesh_headings import MAYBE, parse_heading
from chexgen_lib.sources.table import REPAIRS, read_table, separate, shipped

DATASHEET = Datasheet(
    source="openi",
    title="Indiana University chest X-rays (Open-i)",
    role="downstream",
    paper_name=None,
    size="7,470 radiographs with 3,955 reports; MeSH headings by human indexers",
    licence="CC BY-NC-ND 4.0",
    obtain="the open download of Open-i, US National Library of Medicine; no registration",
    citation="Demner-Fushman D, Kohli MD, Rosenman MB, et al. Preparing a collection of radiology examinations for "
    "distribution and retrieval. Journal of the American Medical Informatics Association 23(2):304-310, 2016.",
    parts=(
        Part(
            "**/NLMCXR_reports.tgz",
            "reports as XML, with headings and the names of their images",
            needed=False,
            either="table",
        ),
        Part("**/*.xml", "the reports, unpacked", needed=False, either="table"),
        Part(
            f"**/{openi_tables.REPORTS}",
            "in place of both: the reports in a mirror at Kaggle",
            needed=False,
            either="table",
        ),
        Part(f"**/{openi_tables.IMAGES}", "the names and projections of that mirror's images", needed=False),
        Part(
            "**/nlmcxr_dicom_metadata.csv*", "dates and views of the images; comes with torchxrayvision", needed=False
        ),
        Part("**/CXR*.png", "images", needed=False),
        Part("**/[0-9]*_IM-*.dcm", "images, DICOM", needed=False),
        Part("**/[0-9]*_IM-*.dcm.png", "images of that mirror", needed=False),
    ),
    shipped=True,
    short_name="Open-i",
)
REPORTS, METADATA, VIEWS_BY_TSNE = (
    "NLMCXR_reports.tgz",
    "nlmcxr_dicom_metadata.csv.gz",
    "nlmcxr_tsne_pa.csv.gz",
)
COLUMNS = ("imageid", "Patient's Birth Date", "Study Date", "View Position", "Patient Orientation")

_UNINDEXED = ("no indexing", "technical quality of image unsatisfactory")


def load(path: str | Path | None = None, metadata: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records, one per image, and rejects of the reports archive and the images' DICOM metadata.

    Rejected: a report without an image, an unreadable XML file, a duplicate image id. Of a folder without XML files the
    tables of `openi_tables` are read, if they are there. Beside the archive, XML files of
    names that it does not hold are not read. A finding that no heading names is absent, unless the report was not
    indexed or MAYBE leaves it open; "borderline" is uncertain.
    """
    table, rejects = _prepare(path, metadata)
    normal = pl.when(pl.col("No Finding") == 1).then(no_finding()).otherwise("No Finding")
    table = table.with_columns(normal.alias("No Finding"))
    return conform(table.select(c for c in SCHEMA if c in table.columns)), rejects


def repairs(path: str | Path | None = None, metadata: str | Path | None = None) -> pl.DataFrame:
    """Images without usable DICOM metadata (their age is null), views that are not believed (see `_told_apart`), and
    "normal" where a finding is a heading too."""
    table, _ = _prepare(path, metadata)
    missing = table.filter(pl.col("age").is_null())
    missing = missing.select(
        source=pl.lit("openi"), row="row", image_id="image_id", field=pl.lit("age"), value=pl.lit("no DICOM metadata")
    ).cast(REPAIRS)
    views = table.filter(pl.col("disbelieved").is_not_null())
    views = views.select(
        source=pl.lit("openi"), row="row", image_id="image_id", field=pl.lit("view"), value="disbelieved"
    ).cast(REPAIRS)
    normal, table = pl.col("No Finding") == 1, table.with_columns(value=pl.col("labels").list.join("|"))
    return pl.concat([missing, views, contradicted(table, "openi", normal, "value")])


def _prepare(path: str | Path | None, metadata: str | Path | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The Record's columns, No Finding as the headings state it, and all rejects."""
    tree = None if path is None else Tree.of(path)
    if tree is not None and metadata is None and tree.folder.is_dir():
        metadata = located(tree, METADATA.removesuffix(".gz"))
    if tree is not None and openi_tables.are_in(tree) and located(tree, REPORTS) is None and not tree.matches("*.xml"):
        images, lost = openi_tables.read(tree)
    else:
        images, lost = read_reports(shipped(REPORTS) if tree is None else _places(tree))
        images = _with_names_of_dicom(images, tree)
    images = images.join(_metadata(metadata), on="key", how="left", maintain_order="left")
    images = _told_apart(images)
    table, rejects = separate(images, "openi")
    heads = pl.col("labels").list.eval(pl.element().str.to_lowercase().str.split("/").list.first().str.strip_chars())
    unindexed = heads.list.set_intersection(list(_UNINDEXED)).list.len() + (heads.list.len() == 0) > 0
    maybe = {f: heads.list.set_intersection(h).list.len() > 0 for f, h in MAYBE.items()}
    unknown = {f: unindexed | maybe.get(f, pl.lit(False)) for f in FINDINGS}
    meanings = pl.DataFrame([_meaning(labels) for labels in table["labels"]], schema=_MEANING)
    table = pl.concat([table, meanings], how="horizontal")
    normal = pl.when(pl.col("present").list.contains("No Finding")).then(1.0)
    table = table.with_columns(states(pl.col("present"), unknown, FINDINGS)).with_columns(
        *(pl.when(~pl.col("uncertain").list.contains(f)).then(pl.col(f)).alias(f) for f in FINDINGS),
        source=pl.lit("openi"),
    )
    table = table.with_columns(normal.otherwise(pl.col("No Finding")).cast(pl.Float32).alias("No Finding"))
    return table, pl.concat([lost, rejects])


def _with_names_of_dicom(images: pl.DataFrame, tree: Tree | None) -> pl.DataFrame:
    """`image` as the archive of DICOM files has it, 1_IM-0001-3001.dcm, where a folder has such and not the PNGs."""
    if tree is None or tree.matches("CXR*_IM-*.*") or not tree.matches("[0-9]*_IM-*.*"):
        return images
    return images.with_columns(image=pl.format("{}.dcm", pl.col("key").str.strip_prefix("CXR")))


def _places(tree: Tree) -> Path | list[Path]:
    """The archive of reports that was given, or of a folder the archive and the reports that are unpacked beside it."""
    archive = located(tree, REPORTS)
    if archive == tree.folder:
        return archive
    unpacked = [] if archive and not tree.matches("*.xml") else every(tree, "*.xml")
    return [*filter(None, [archive]), *unpacked]


def _told_apart(images: pl.DataFrame) -> pl.DataFrame:
    """Keep the views of reports all of whose images are called frontal only where torchxrayvision's table says so, too.

    Such headers call the lateral image of the pair PA (1,089 of 3,208 reports with two images, as the images' shapes
    show), so what they say of an image that the table does not name is not known: null. `disbelieved` is that view.
    Where a table has the image's projection (`openi_tables`) that is believed, unless the view says otherwise.
    """
    frontal = pl.col("view").is_in(FRONTAL).fill_null(False)
    alike = (frontal.all() & (pl.col("image_id").n_unique() > 1)).over("study_id")
    named, projection = pl.col("named").fill_null(False), pl.col("projection")
    believed = ~alike | named
    differ = pl.when(projection == "Lateral").then(named).otherwise((pl.col("view") == "LATERAL").fill_null(False))
    seen = pl.when(projection == "Lateral").then(pl.lit("LATERAL")).when(frontal).then("view")
    return images.with_columns(
        view=pl.when(projection.is_null() & believed)
        .then("view")
        .when(projection.is_not_null() & ~differ)
        .then(seen.otherwise(pl.lit("FRONTAL"))),
        disbelieved=pl.when(projection.is_null() & ~believed)
        .then("view")
        .when(projection.is_not_null() & differ)
        .then(pl.format("{}, of an image of projection {}", "view", projection)),
    )


def read_reports(archive: str | Path | list[Path]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per image of every report in the archive (or of these files), and the reports that have none or cannot
    be read."""
    images, lost = [], []
    for file, raw in _files(archive):
        try:
            rows = _report(fromstring(raw), file)
        except (ParseError, DefusedXmlException, ValueError) as error:
            lost.append(("openi", file, None, f"unreadable report: {error}"))
            continue
        images += rows
        if not rows:
            lost.append(("openi", file, None, "report without an image"))
    if not images and not lost:
        raise RecordError(f"{archive}: no XML report inside; give NLMCXR_reports.tgz")
    schema = ("source", "row", "image_id", "reason")
    return pl.DataFrame(images, schema=openi_tables.SCHEMA), pl.DataFrame(
        lost, schema=dict.fromkeys(schema, pl.String), orient="row"
    )


def _files(places: str | Path | list[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each report, packed in a .tgz or not; a report that is there twice is one.

    Beside an archive, which is the first of `places`, other files than its reports are none.

    Raises:
        RecordError: for two reports of one name that differ.
    """
    known: dict[str, bytes] = {}
    places = places if isinstance(places, list) else [Path(places)]
    packed = places[0].suffix.lower() != ".xml"
    for path in places:
        loose = path.suffix.lower() == ".xml"
        if loose and packed and path.name not in known:
            continue
        reports = [(path.name, path.read_bytes())] if loose else _packed(path)
        for name, raw in reports:
            if known.setdefault(name, raw) != raw:
                raise RecordError(f"{path}: another {name} differs; which is meant is not known: move one away")
    yield from known.items()


def _packed(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(".xml"):
                    yield Path(member.name).name, tar.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise RecordError(f"{archive}: not a readable .tgz of reports ({error}); fetch it again") from error


# The archive writes CXR1_1_IM-0001-3001 where the metadata write CXR1_IM-0001-3001.
_NUMBERED = r"^(CXR\d+)_\d+_IM"
_MEANING = {"present": pl.List(pl.String), "uncertain": pl.List(pl.String), "details": SCHEMA["details"]}


def _report(root: Element, file: str) -> list[dict]:
    """The rows of one report, one per image."""
    uid = root.find("uId")
    if uid is None or not uid.get("id"):
        raise ValueError("it has no uId")
    sections = {a.get("Label"): (a.text or "").strip() or None for a in root.iter("AbstractText")}
    labels = [openi_tables.tidy(heading.text) for heading in root.iter("major") if heading.text]
    shared = {
        "row": file,
        "patient_id": f"openi:{uid.get('id')}",
        "study_id": f"openi:{uid.get('id')}",
        "sex": openi_tables.sex_in(sections.get("INDICATION") or ""),
        "report": sections.get("FINDINGS"),
        "impression": sections.get("IMPRESSION"),
        "labels": list(dict.fromkeys(labels)),
        "projection": None,
        "broken": False,
        "reason": None,
    }
    ids = [image.get("id") or "" for image in root.iter("parentImage")]
    return [
        shared | {"key": re.sub(_NUMBERED, r"\1_IM", i), "image_id": f"openi:{i}", "image": f"{i}.png"} for i in ids
    ]


def _meaning(labels: list[str]) -> dict[str, list]:
    """Findings present and uncertain, and the details, that a report's headings assert."""
    present, uncertain, details = [], [], []
    for label in labels:
        heading = parse_heading(label)
        if heading.borderline and heading.finding:
            uncertain.append(heading.finding)
            continue
        if heading.finding:
            present.append(heading.finding)
        subject = heading.finding or label
        for site in heading.sites or (None,):
            detail = {"finding": subject, "side": heading.side, "site": site, "severity": heading.severity}
            if any((heading.side, site, heading.severity)) and detail not in details:
                details.append(detail)
    uncertain = [f for f in dict.fromkeys(uncertain) if f not in present]
    return {"present": list(dict.fromkeys(present)), "uncertain": uncertain, "details": details}


def _metadata(path: str | Path | None) -> pl.DataFrame:
    """key (image id), view, and age (years from birth date to study date of the same row) of every image.

    The view is lateral if the DICOM header or torchxrayvision's t-SNE table says so, else as in the header, else as in
    that table, else unknown; `named` is whether that table calls it PA.
    """
    keyed = pl.col("imageid").str.replace(_NUMBERED, "${1}_IM").alias("key")
    table = read_table(path or shipped(METADATA), COLUMNS).with_columns(keyed)
    tsne = read_table(shipped(VIEWS_BY_TSNE), ("imageid", "tsne-view")).select(keyed, "tsne-view")
    table = table.join(tsne, on="key", how="full", coalesce=True)
    study, birth = (pl.col(c).str.to_date("%Y%m%d", strict=False) for c in ("Study Date", "Patient's Birth Date"))
    birthday_to_come = study.dt.month() * 100 + study.dt.day() < birth.dt.month() * 100 + birth.dt.day()
    age = study.dt.year() - birth.dt.year() - birthday_to_come.cast(pl.Int32)
    position, toward = pl.col("View Position"), pl.col("Patient Orientation").str.slice(2, 1)
    lateral = position.str.contains("LATERAL|^LL$|^RL$") | toward.is_in(["A", "P"]) | (pl.col("tsne-view") == "L")
    frontal = position.replace_strict({"PA": "PA", "AP": "AP"}, default=None, return_dtype=pl.String)
    frontal = pl.coalesce(frontal, pl.col("tsne-view").replace_strict({"PA": "PA"}, default=None))
    return table.select(
        "key",
        named=pl.col("tsne-view") == "PA",
        view=pl.when(lateral.fill_null(False)).then(pl.lit("LATERAL")).otherwise(frontal),
        age=pl.when(age.is_between(0, MAX_AGE)).then(age).cast(pl.Float32),
    )
