"""The file of answers: one version, one process at a time."""

import sqlite3

import pytest

from chexgen_lib.language_model.cache import AnswerCache, LanguageModelError


def test_a_cache_of_another_version_or_kind(tmp_path):
    path = tmp_path / "c"
    with AnswerCache(path):
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LanguageModelError, match="version 99"):
        AnswerCache(path)
    path.write_text("not a database, but long enough to be read as one " * 50)
    with pytest.raises(LanguageModelError, match="another path"):
        AnswerCache(path)


def test_a_cache_is_open_once(tmp_path):
    with AnswerCache(tmp_path / "c"), pytest.raises(LanguageModelError, match="another run"):
        AnswerCache(tmp_path / "c")


@pytest.mark.parametrize("place", ["folder", "file/answers.sqlite"])
def test_a_cache_where_none_can_be(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(LanguageModelError, match=f"{place}.*; name a file that can be written"):
        AnswerCache(tmp_path / place)
