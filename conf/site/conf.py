"""For `make site`: Sphinx with pages in Markdown, notebooks as they are committed, and the library's docstrings."""

from pathlib import Path

from sphinx.application import Sphinx

project = "ChexGen companion"
extensions = ["myst_nb", "autoapi.extension", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # read by request, which a page from the disk may not make

nb_execution_mode = "off"  # what is committed was executed, and compared by `make test`
myst_heading_anchors = 4
suppress_warnings = [
    "docutils",  # docstrings are written for people, with words in single backticks
    "ref.python",  # names of attributes that several classes have are not linked
    "misc.highlighting_failure",  # CSV has no colours
    "autoapi.python_import_resolution",  # constants that are unpacked from a tuple are not found
]

# Read as text, not imported: the library and torch need not be installed.
autoapi_dirs = [str(Path(__file__).parents[2] / "chexgen_lib")]
autoapi_generate_api_docs = False
autoapi_options = ["members", "show-inheritance", "show-module-summary"]
autoapi_python_class_content = "class"
napoleon_use_ivar = True
autodoc_typehints = "signature"
default_role = "code"
add_module_names = False


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _take_stars_literally, priority=400)  # before napoleon


def _take_stars_literally(app: Sphinx, kind: str, name: str, thing, options, lines: list[str]) -> None:
    """`**look` and `n_` in docstrings are names, not markup."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("*", r"\*").replace("_ ", r"\_ ").replace("|", r"\|") for part in parts[::2]]
        lines[i] = "`".join(parts)
