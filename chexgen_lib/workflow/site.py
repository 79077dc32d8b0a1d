"""The pages of `make site`: the committed run, laid out for Sphinx, and a check of what Sphinx made of them.

    python -m chexgen_lib.workflow.site lay-out build/site/source
    python -m chexgen_lib.workflow.site check build/site/html

README, docs, notebooks and figures keep their places relative to each other, so their links stay as they are. Links to
code lead to its page of the API, links to other files to a copy of the file.
"""

import argparse
import ast
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from shutil import copyfile
from urllib.parse import unquote, urlsplit

import nbformat
from PIL import Image

from chexgen_lib.storage import replacing
from chexgen_lib.workflow import notebooks

LINK = re.compile(r"(?<!`)(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")  # image mark, text, target
LARGEST = 15 * 2**20  # bytes of the site
WIDEST = 1600  # pixels of a figure
LIBRARY = "chexgen_lib"


class SiteError(ValueError):
    """A page links to what does not exist, or the site is too large; the message names it."""


def lay_out(root: Path, target: Path) -> None:
    """Write the sources of the site of the repository `root` into the folder `target`, in place of what was there.

    Raises:
        SiteError: for a link to a file that does not exist.
    """
    with replacing(target) as partial:
        site = _Sources(root, partial)
        for page in (*sorted((root / "docs").glob("*.md")), *sorted((root / "figures").glob("*/README.md"))):
            site.write(page, site.linked(page, page.read_text(encoding="utf-8")))
        for page in (*sorted((root / "docs").glob("*.ipynb")), *sorted((root / "notebooks").glob("*.ipynb"))):
            site.write_notebook(page)
        site.write_api()
        site.write_figures()
        readme = root / "README.md"
        site.write(readme, site.linked(readme, readme.read_text(encoding="utf-8")) + _contents(root))


class _Sources:
    """Pages of `root` on their way into `target`."""

    def __init__(self, root: Path, target: Path):
        self.root, self.target = root.resolve(), target

    def write(self, page: Path, text: str) -> None:
        path = self.target / _page(page.resolve().relative_to(self.root))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_notebook(self, path: Path) -> None:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = self.linked(path, cell.source)
        self.write(path, nbformat.writes(notebook))

    def linked(self, page: Path, text: str) -> str:
        """The Markdown `text` of a page with targets of links as they are on the site."""

        def replaced(link: re.Match) -> str:
            image, words, target = link.groups()
            return f"{image}[{words}]({self._target(page, target, bool(image))})"

        return LINK.sub(replaced, text)

    def _target(self, page: Path, target: str, shown: bool) -> str:
        name, hash_, fragment = target.partition("#")
        if urlsplit(target).scheme or not name:
            return target
        path = (page.parent / unquote(name)).resolve()
        if not path.exists() or not path.is_relative_to(self.root):
            raise SiteError(f"{page}: links to {target}, which does not exist")
        place = self._place(path.relative_to(self.root))
        if not shown and path.parent == self.root / "figures" and path.suffix == ".png":
            place, hash_, fragment = Path("figures.md"), "#", path.stem  # Sphinx would keep a second copy to download
        here = _page(page.resolve().relative_to(self.root)).parent
        return Path(os.path.relpath(place, here)).as_posix() + hash_ + fragment

    def _place(self, path: Path) -> Path:
        """Where on the site something of the repository is; files are put there."""
        if path.parts[0] == LIBRARY and len(path.parts) > 1 and path.suffix in ("", ".py"):
            return Path("api", f"{Path(path.parts[1]).stem}.rst")
        if path == Path("figures"):
            return Path("figures.md")
        if (self.root / path).is_dir():
            return self._listing(path)
        if path.suffix in (".md", ".ipynb"):
            return _page(path)
        return self._file(path)

    def _file(self, path: Path) -> Path:
        """A copy of a file; a figure as WebP of at most WIDEST pixels, a tenth of the bytes."""
        place = path.with_suffix(".webp") if path.suffix == ".png" else path
        (self.target / place).parent.mkdir(parents=True, exist_ok=True)
        if place == path:
            copyfile(self.root / path, self.target / place)
        elif not (self.target / place).exists():
            with Image.open(self.root / path) as image:
                image.thumbnail((WIDEST, 10 * WIDEST))
                image.convert("RGB").save(self.target / place, quality=70, method=6)
        return place

    def _listing(self, folder: Path) -> Path:
        """A page that lists the files of a folder."""
        page = folder / "index.md"
        files = sorted(path.name for path in (self.root / folder).iterdir() if path.is_file())
        for name in files:
            self._file(folder / name)
        text = "\n".join([":orphan:", "", f"# `{folder}`", "", *(f"- [{name}]({name})" for name in files)])
        (self.target / page).write_text(text.replace(":orphan:", "---\norphan: true\n---"), encoding="utf-8")
        return page

    def write_api(self) -> None:
        """A page of each room of the library, with what its modules define."""
        folder = self.target / "api"
        folder.mkdir(parents=True, exist_ok=True)
        for room in sorted((self.root / LIBRARY).iterdir()):
            modules = _modules(room) if room.suffix in ("", ".py") and room.stem[0] != "_" else {}
            if modules:
                title = f"{LIBRARY}.{room.stem}"
                parts = [
                    title,
                    "=" * len(title),
                    "",
                    *(line for name, path in modules.items() for line in _api(name, path)),
                ]
                (folder / f"{room.stem}.rst").write_text("\n".join(parts) + "\n", encoding="utf-8")

    def write_figures(self) -> None:
        """The gallery: every figure of the committed run, beside the notebook that draws it and what it plots."""
        code = {name: _code(self.root / "notebooks" / f"{name}.ipynb") for name in _notebooks(self.root)}
        drawn = {
            path: next((name for name, source in code.items() if f'"{path.stem}"' in source), "")
            for path in sorted((self.root / "figures").glob("*.png"))
        }
        parts = ["# Figures", "", "Of the run that is committed here. What stands in grey is the paper's."]
        for path in sorted(drawn, key=lambda path: drawn[path] or "~"):  # as the notebooks draw them
            links = [f"[{drawn[path]}](notebooks/{drawn[path]}.ipynb)"] if drawn[path] else []
            table = path.with_suffix(".csv")
            links += [f"[{table.name}]({self._file(table.relative_to(self.root))})"] if table.exists() else []
            place = self._file(path.relative_to(self.root))
            parts += ["", f"## {path.stem}", "", f"![{path.stem}]({place})", "", ", ".join(links)]
        (self.target / "figures.md").write_text("\n".join(parts), encoding="utf-8")


def _page(path: Path) -> Path:
    """Where a page of the repository is on the site."""
    return path.with_name("index.md") if path.name == "README.md" else path


def _notebooks(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))


def _code(path: Path) -> str:
    return "\n".join(cell.source for cell in notebooks.code_cells(nbformat.read(path, as_version=4)))


def _modules(room: Path) -> dict[str, Path]:
    """Name and file of each module in a room, the room itself first."""
    paths = [room] if room.is_file() else [path for path in sorted(room.rglob("*.py")) if path.name != "__main__.py"]
    named = {".".join(path.relative_to(room.parent.parent).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def _api(name: str, path: Path) -> list[str]:
    """What Sphinx is to take from a module: its docstring, and its own public functions and classes."""
    lines = ["", name, "-" * len(name), "", f".. autoapimodule:: {name}", ""]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            lines += [f".. autoapi{kind}:: {name}.{node.name}", *(["   :members:"] if kind == "class" else []), ""]
    return lines


def _contents(root: Path) -> str:
    """The tables of contents of the first page, which make the menu."""
    groups = {
        "Notebooks": [f"notebooks/{name}" for name in _notebooks(root)],
        "Documentation": ["figures", "docs/*", "figures/*/index"],
        "Library": ["api/*"],
    }
    parts = []
    for caption, pages in groups.items():
        parts += ["", "```{toctree}", ":hidden:", ":glob:", ":maxdepth: 1", f":caption: {caption}", "", *pages, "```"]
    return "\n".join(parts) + "\n"


class _Links(HTMLParser):
    """The targets of a page's links, and the places in it that links can name."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.places |= {given[key] for key in ("id", "name") if given.get(key)}
        self.targets += [given[key] for key in ("href", "src") if given.get(key)]


def check(site: Path) -> str:
    """What the built site holds, in a line.

    Raises:
        SiteError: if a link leads nowhere, or the site is larger than LARGEST.
    """
    pages = {path.resolve(): _Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise SiteError(f"{site} holds no page: run `make site`")
    faults, outside = [], set()
    for page, links in pages.items():
        for target in links.targets:
            if urlsplit(target).scheme or target.startswith("//"):
                outside.add(target)
            elif not _leads_somewhere(page, target, pages):
                faults.append(f"{page.relative_to(site.resolve())}: {target}")
    if faults:
        raise SiteError(f"{len(faults)} links lead nowhere:\n  " + "\n  ".join(sorted(set(faults))[:20]))
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    if size > LARGEST:
        raise SiteError(f"{site} has {size / 2**20:.1f} MB, more than {LARGEST / 2**20:.0f}: make figures smaller")
    return f"{site}: {len(pages)} pages, {size / 2**20:.1f} MB, no dead link; {len(outside)} addresses elsewhere"


def _leads_somewhere(page: Path, target: str, pages: dict[Path, _Links]) -> bool:
    parts = urlsplit(target)
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    path = path / "index.html" if path.is_dir() else path
    found = path in pages if path.suffix == ".html" else path.is_file()
    return found and (not parts.fragment or path not in pages or unquote(parts.fragment) in pages[path].places)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=("lay-out", "check"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.action == "check":
            print(check(options.folder))
        else:
            lay_out(notebooks.ROOT, options.folder)
    except SiteError as error:
        print(f"site: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
