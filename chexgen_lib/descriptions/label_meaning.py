"""Which of the 14 findings a source's label means, for those who write or read descriptions.

The registry of datasets is looked up by name and not imported: a stage that only words curated records then does not
depend on the code of every reader, and a new dataset re-runs the curation alone. Nothing is missed by that. What a
label means decides the finding states of the records that carry it, so a changed meaning reaches every stage with them.
"""

import importlib
from functools import cache

REGISTRY = "chexgen_lib.sources.registry"


@cache
def finding_of(label: str) -> str | None:
    """The CheXpert finding that a source's label means, or None where it means none of the 14."""
    return importlib.import_module(REGISTRY).finding_of(label)
