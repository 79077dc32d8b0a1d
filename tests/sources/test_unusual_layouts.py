"""`chexgen data check` of all datasets: sound layouts are read, and none is called fine where no record finds an image.

`benchmarks/data_check_table.py` writes all that it says into a table.
"""

import pytest

from chexgen_lib.records import RecordError
from chexgen_lib.sources import registry
from tests.sources import unusual_layouts as unusual


@pytest.mark.parametrize("layout", unusual.SOUND, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("source", registry.ALL)
def test_a_sound_layout_is_read(source, layout, tmp_path):
    folder = unusual.whole(source, tmp_path)
    layout(folder)
    said, fine = registry.check(source, tmp_path)
    assert fine, said
    images = registry.load(source, folder)[0]["image"].drop_nulls()
    assert len(images) and all((folder / image).is_file() for image in images)


@pytest.mark.parametrize("layout", (*unusual.USELESS, *unusual.UNCLEAR), ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("source", registry.ALL)
def test_a_useless_layout_is_not_fine_and_has_a_remedy(source, layout, tmp_path):
    layout(unusual.whole(source, tmp_path))
    try:
        said, fine = registry.check(source, tmp_path)
    except RecordError as error:
        said, fine = f"first remedy: {error}", False
    assert not fine and "first remedy: " in said
