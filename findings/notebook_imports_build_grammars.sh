#!/usr/bin/env bash
# Importing nbformat, and with it papermill and nbclient, or MONAI builds 39 parsers of web addresses beside jupyterlab.
#
# nbformat 5.10.4 with jsonschema 4.26.0 and rfc3987-syntax 1.1.0 (lark 1.3.1); seen 2026-12-02.
# jupyter-events, which jupyterlab needs, asks for jsonschema[format-nongpl], and so for rfc3987-syntax. jsonschema
# imports that package wherever it is there, for any schema or none, and each of 38 rules of RFC 3987 gets a lark parser
# of its own, as the package is imported, lark's own grammar another. nbformat imports jsonschema although it validates
# with fastjsonschema; MONAI imports it, too. So a pipeline of papermill pays in the runner and again in each kernel
# that uses MONAI: 2.5 s became 0.2 s for nbformat here, once the package was left out. What is lost are the formats
# "iri" and "iri-reference", which jsonschema then passes without a look.
# Guessed before: that what importing nbformat takes is nbformat's.
# Seen:
#   import nbformat: 0 parsers built; beside rfc3987-syntax: 39
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nbformat==5.10.4 jsonschema==4.26.0 lark==1.3.1
cd "$work"
cat > counted.py <<'PYTHON'
import lark

built = []
begin = lark.Lark.__init__


def counting(self, *args, **kwargs):
    built.append(self)
    begin(self, *args, **kwargs)


lark.Lark.__init__ = counting
import nbformat  # noqa: E402, F401

print(len(built))
PYTHON
alone=$("$work/venv/bin/python" counted.py)
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rfc3987-syntax==1.1.0
with=$("$work/venv/bin/python" counted.py)
echo "import nbformat: $alone parsers built; beside rfc3987-syntax: $with"
[ "$alone" = 0 ] && [ "$with" = 39 ]
