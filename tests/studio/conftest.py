"""A small generator in place of the one that the package ships."""

import pytest

from chexgen_lib.studio.session import Session
from tests.builders import shipped_foundation


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A session with a generator of a few thousand parameters and images of 32 px."""
    with pytest.MonkeyPatch.context() as patch:
        shipped_foundation(tmp_path_factory.mktemp("foundation") / "weights", patch)
        return Session()


@pytest.fixture
def session(small):
    """The same with nothing kept, and with what it sampled forgotten."""
    small.kept.clear()
    small._seen.clear()
    return small
