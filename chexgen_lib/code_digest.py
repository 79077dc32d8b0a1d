"""The code that a result depends on: the library's modules that a source imports, without docstrings and comments.

DVC watches these digests in place of the modules (`workflow.dag`), and they are part of the key of every kept result
(`kept.kept`): rewording a docstring recomputes nothing, changing a constant recomputes whatever uses it.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = __package__
ROOT = Path(__file__).resolve().parents[1]


def needed(source: str, folder: Path | None = None) -> list[Path]:
    """Files of the library that a source imports, directly or indirectly, also inside functions; sorted.

    They include a data file of the package (a table, weights) if the source or a module names it or its folder. A
    module that imports by computed name (`import_module`) may need any module of its folder.

    Args:
        folder: of the source, if it is a module's.

    Raises:
        SyntaxError: if the source, or a module, is not plain Python; the message names the module.
    """
    waiting, data = _needs_of(_stripped_tree(source), folder)
    found = set(data)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        imports, data = _needs(path, path.stat().st_mtime_ns)
        waiting += imports
        found.update(data)
    return sorted(found)


def lines(source: str, folder: Path | None = None) -> list[str]:
    """One line for each `needed` file: its path in the repository and the sha256 of its stripped code or its bytes."""
    files = needed(source, folder)
    return [f"{path.relative_to(ROOT).as_posix()} {_counting(path, path.stat().st_mtime_ns)}" for path in files]


def of(file: str | Path) -> str:
    """Digest of a module's file and of every file of the library that it needs."""
    file = Path(file).resolve()
    source = file.read_text(encoding="utf-8")
    return hashlib.sha256("\n".join([stripped(source), *lines(source, file.parent)]).encode()).hexdigest()


def stripped(source: str) -> str:
    """What a Python source computes, as text: comments, layout and docstrings do not count.

    Docstrings stay where a program may read them: in a module that names `__doc__` or uses pydantic, whose schemas
    quote them.
    """
    return ast.dump(_stripped_tree(source))


def _stripped_tree(source: str, name: str = "<source>") -> ast.Module:
    tree = ast.parse(source, name)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if "__doc__" not in names and "pydantic" not in modules:
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                node.body = body[1:] or [ast.Pass()]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _counting(path: Path, _modified: int) -> str:
    content = stripped(path.read_text(encoding="utf-8")).encode() if path.suffix == ".py" else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


@cache
def _needs(path: Path, _modified: int) -> tuple[list[Path], list[Path]]:
    """Modules of this package that a file imports, and data files of the package that it names."""
    if path.suffix != ".py":
        return [], []
    return _needs_of(_stripped_tree(path.read_text(encoding="utf-8"), str(path)), path.parent)


def _needs_of(tree: ast.Module, folder: Path | None) -> tuple[list[Path], list[Path]]:
    """`_needs` of a source in a folder of this package, or elsewhere."""
    inside = folder is not None and folder.is_relative_to(ROOT / PACKAGE)
    imports = list(_imported(tree, package=".".join(folder.relative_to(ROOT).parts) if inside else ""))
    if inside and any(isinstance(node, ast.alias) and node.name == "import_module" for node in ast.walk(tree)):
        imports += folder.glob("*.py")
    texts = {part for node in ast.walk(tree) if isinstance(node, ast.Constant) for part in _parts(node)}
    return imports, [p for p in _data_files(ROOT / PACKAGE) if _own_name(p) in texts]


@cache
def _data_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    # Not what the system or an editor leaves in a folder that somebody looked into.
    return [path for path in files if not path.name.startswith((".", "~")) and not path.name.endswith("~")]


def _parts(node: ast.Constant) -> set[str]:
    """A string as components of a path."""
    return set(node.value.split("/")) if isinstance(node.value, str) else set()


def _own_name(path: Path) -> str:
    """By what modules find a data file: its name, or that of its folder if there are no modules in it.

    (Files of such folders are named alike: each folder of weights has its `recipe.json`.)
    """
    return path.name if any(path.parent.glob("*.py")) else path.parent.name


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
