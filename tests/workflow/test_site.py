"""The sources of the site hold every page that is linked, and the check finds what leads nowhere."""

import json

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, writes
from PIL import Image

from chexgen_lib.workflow import site

README = """# Toy

[results](docs/results.md), [a part](docs/results.md#part), [code](chexgen_lib/phantom), [licence](LICENSE),
[figures](figures), [profiles](conf), [elsewhere](https://example.org/a), ![sheet](figures/sheet.png),
`[not](a-link)`, [here](#toy)
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with one of each kind of page and of link."""
    root = tmp_path / "repository"
    texts = {
        "README.md": README,
        "LICENSE": "free",
        "conf/laptop.yaml": "seed: 0",
        "docs/results.md": "[back](../README.md), [points](../figures/sheet.csv), [drawn](../figures/sheet.png), "
        "[sizes](../chexgen_lib/one.py)",
        "figures/real/README.md": "# Real\n\n![grey](grey.png)",
        "figures/sheet.csv": "a\n1\n",
        "chexgen_lib/one.py": "from os import path\n\ndef f(): ...\n\nclass C: ...\n\ndef _hidden(): ...",
        "chexgen_lib/phantom/__init__.py": '"""Rooms."""',
        "chexgen_lib/phantom/render.py": '"""Render."""',
        "notebooks/01_toy.ipynb": writes(
            new_notebook(
                cells=[
                    new_markdown_cell("# 01 · Toy\n\n[sizes](../chexgen_lib/one.py)"),
                    new_code_cell('stage.figure(fig, table, "sheet")'),
                ]
            )
        ),
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    Image.new("L", (3200, 80), 99).save(root / "figures/sheet.png")
    Image.new("L", (64, 64), 99).save(root / "figures/real/grey.png")
    return root


def test_pages_keep_their_places_and_links_lead_to_what_is_there(repository, tmp_path):
    site.lay_out(repository, tmp_path / "source")
    first = (tmp_path / "source/index.md").read_text()
    targets = {words: target for _, words, target in site.LINK.findall(first)}
    assert targets == {
        "results": "docs/results.md",
        "a part": "docs/results.md#part",
        "code": "api/phantom.rst",
        "licence": "LICENSE",
        "figures": "figures.md",
        "profiles": "conf/index.md",
        "elsewhere": "https://example.org/a",
        "sheet": "figures/sheet.webp",
        "here": "#toy",
    }
    for target in set(targets.values()) - {"https://example.org/a", "#toy"}:
        assert (tmp_path / "source" / target.partition("#")[0]).is_file(), target
    assert "`[not](a-link)`" in first and "notebooks/01_toy" in first and "docs/*" in first
    results = (tmp_path / "source/docs/results.md").read_text()
    assert site.LINK.findall(results) == [
        ("", "back", "../index.md"),
        ("", "points", "../figures/sheet.csv"),
        ("", "drawn", "../figures.md#sheet"),
        ("", "sizes", "../api/one.rst"),
    ]
    cells = json.loads((tmp_path / "source/notebooks/01_toy.ipynb").read_text())["cells"]
    assert "(../api/one.rst)" in "".join(cells[0]["source"])


def test_figures_are_shown_beside_the_notebook_that_draws_them_and_are_small(repository, tmp_path):
    site.lay_out(repository, tmp_path / "source")
    gallery = (tmp_path / "source/figures.md").read_text()
    assert "![sheet](figures/sheet.webp)" in gallery
    assert "[01_toy](notebooks/01_toy.ipynb), [sheet.csv](figures/sheet.csv)" in gallery
    assert Image.open(tmp_path / "source/figures/sheet.webp").size == (1600, 40)
    assert Image.open(tmp_path / "source/figures/real/grey.webp").size == (64, 64)


def test_every_module_has_its_place_in_the_api(repository, tmp_path):
    site.lay_out(repository, tmp_path / "source")
    pages = {path.stem: path.read_text() for path in (tmp_path / "source/api").iterdir()}
    found = {name: [line[3:] for line in text.splitlines() if line.startswith(".. ")] for name, text in pages.items()}
    assert found == {
        "one": [
            "autoapimodule:: chexgen_lib.one",
            "autoapifunction:: chexgen_lib.one.f",
            "autoapiclass:: chexgen_lib.one.C",
        ],
        "phantom": ["autoapimodule:: chexgen_lib.phantom", "autoapimodule:: chexgen_lib.phantom.render"],
    }


def test_a_link_to_nothing_stops_before_anything_is_replaced(repository, tmp_path):
    site.lay_out(repository, tmp_path / "source")
    (repository / "docs/results.md").write_text("[gone](../figures/gone.csv)")
    with pytest.raises(site.SiteError, match=r"results\.md: links to \.\./figures/gone\.csv, which does not exist"):
        site.lay_out(repository, tmp_path / "source")
    assert (tmp_path / "source/index.md").is_file()


def test_every_link_of_this_repository_leads_somewhere(root):
    """As `lay_out`, without its files."""
    sources = site._Sources(root, root)
    sources._file = lambda path: path
    sources._listing = lambda path: path
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "figures").glob("*/README.md"))]
    assert pages and all(sources.linked(page, page.read_text()) for page in pages)


@pytest.fixture
def built(tmp_path):
    folder = tmp_path / "html"
    (folder / "docs").mkdir(parents=True)
    (folder / "index.html").write_text(
        '<a href="docs/a.html#part">x</a><a href="https://example.org">y</a><a href="#top" id="top">z</a>'
        '<img src="b%20.png">'
    )
    (folder / "docs/a.html").write_text('<h2 id="part">Part</h2><a href="../index.html">x</a><a href="../docs/">y</a>')
    (folder / "docs/index.html").write_text("x")
    (folder / "b .png").write_bytes(b"x")
    return folder


def test_a_sound_site_is_counted(built, capsys):
    assert site.main(["check", str(built)]) == 0
    assert "3 pages, 0.0 MB, no dead link; 1 addresses elsewhere" in capsys.readouterr().out


@pytest.mark.parametrize("link", ['href="gone.html"', 'href="#gone"', 'href="docs/a.html#gone"', 'src="gone.png"'])
def test_a_dead_link_is_named_with_its_page(built, link, capsys):
    (built / "docs/index.html").write_text(f"<a {link}>x</a>".replace("docs/", ""))
    assert site.main(["check", str(built)]) == 1
    target = link.split('"')[1].replace("docs/", "")
    assert f"1 links lead nowhere:\n  docs/index.html: {target}" in capsys.readouterr().err


def test_a_site_that_is_too_large_or_empty_is_refused(built, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "LARGEST", 100)
    with pytest.raises(site.SiteError, match="make figures smaller"):
        site.check(built)
    with pytest.raises(site.SiteError, match="holds no page: run `make site`"):
        site.check(tmp_path / "nothing")


def test_the_site_has_an_environment_of_its_own(root):
    """Sphinx stays out of the runtime's lock file, and is locked exactly."""
    ours, runtime = (
        {line.partition("==")[0] for line in (root / name).read_text().splitlines()}
        for name in ("requirements-site.lock", "requirements.lock")
    )
    assert {"sphinx", "myst-nb", "furo", "sphinx-autoapi"} <= ours - runtime
    assert all("==" in line for line in (root / "requirements-site.lock").read_text().splitlines())
