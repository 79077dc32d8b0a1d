"""Which files of the library a piece of code needs: what DVC watches of a notebook, and what keys a kept training."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = __package__
ROOT = Path(__file__).resolve().parents[1]


def needed(source: str) -> list[Path]:
    """Files of the library that a source imports, followed through the package, in functions too; sorted.

    A data file of the package (a table, weights) belongs to them if a module names it, or its folder. One
    that imports by computed name (`import_module`) may need any module of its folder.

    Raises SyntaxError: if the source, or a module, is not plain Python; the message names the module.
    """
    data = [p for p in (ROOT / PACKAGE).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    waiting = list(_imported(ast.parse(source), package=""))
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        tree = ast.parse(path.read_text(), str(path))
        waiting += _imported(tree, package=".".join(path.parent.relative_to(ROOT).parts))
        if any(isinstance(node, ast.alias) and node.name == "import_module" for node in ast.walk(tree)):
            waiting += path.parent.glob("*.py")
        texts = {part for node in ast.walk(tree) if isinstance(node, ast.Constant) for part in _parts(node)}
        found.update(p for p in data if texts & _own_names(p))
    return sorted(found)


def _parts(node: ast.Constant) -> set[str]:
    """A string as components of a path."""
    return set(node.value.split("/")) if isinstance(node.value, str) else set()


def _own_names(path: Path) -> set[str]:
    """Name of a data file, and of the folders around it that hold no modules."""
    return {path.name} | {p.name for p in path.parents if ROOT / PACKAGE in p.parents and not any(p.glob("*.py"))}


def _imported(tree: ast.Module, package: str) -> Iterator[Path]:
    """Files of the modules that a source imports from this package, with the packages on the way to them."""
    dotted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            dotted.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    for module in dotted:
        parts = module.split(".")
        for length in range(1, len(parts) + 1) if parts[0] == PACKAGE else ():
            stem = ROOT.joinpath(*parts[:length])
            yield from (p for p in (stem / "__init__.py", stem.with_suffix(".py")) if p.is_file())
