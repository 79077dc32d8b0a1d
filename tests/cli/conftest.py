"""Fixtures of the tests of `chexgen sample`."""

import pytest

from tests.cli.commands import saved


@pytest.fixture(scope="module")
def weights(pipeline, tmp_path_factory):
    return saved(pipeline, tmp_path_factory)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.csv"
    rows = [f"case{i},Effusion number {i}." for i in range(6)]
    path.write_text("\n".join(["name,impression", *rows]) + "\n")
    return path
