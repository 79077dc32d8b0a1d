"""What code asks of the modules that it imports, without running it."""

import ast
import types
from collections.abc import Iterator


def missing_names(source: str) -> Iterator[str]:
    """What code asks of an imported module, directly or by its name, that the module does not have."""
    tree, names = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), "<imports>", "exec"), names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            if isinstance(module, types.ModuleType) and not hasattr(module, node.attr):
                yield f"{module.__name__}.{node.attr}"
