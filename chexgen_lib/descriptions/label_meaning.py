"""Which of the 14 findings a source's label means, for modules that write or read descriptions.

The registry of datasets is looked up by name and not imported, so that a stage that only words curated records does not
depend on the code of every reader, and a new dataset re-runs the curation alone. This misses no change: the meaning of
a label decides the finding states of the records that carry it, so a changed meaning reaches every stage through the
records.
"""

import importlib
from functools import cache

REGISTRY = "chexgen_lib.sources.registry"


@cache
def finding_of(label: str) -> str | None:
    """The CheXpert finding that a source's label means, or None where it means none of the 14."""
    return importlib.import_module(REGISTRY).finding_of(label)
