"""The figures of notebook 14 hold what their tables say."""

import numpy as np

from chexgen_lib.experiments.counterfactuals import measures
from chexgen_lib.figures import fig14_counterfactuals as figures
from tests.experiments.counterfactuals.drawn import Known, drawn_films


def test_every_editor_and_attribute_has_its_place_and_films_are_named():
    bench = drawn_films(34)
    arms = {"identity": bench.before, "truth": bench.after}
    probed = measures.ProbedFilms(bench, drawn_films(34, seed=1))
    table = measures.table(arms, bench, probed, Known(bench), "identity", 20)
    fig = figures.draw_editors(table)
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == list(arms)
    assert [ax.get_title(loc="left") for ax in fig.axes] == list(figures.SHOWN)
    fig = figures.draw_attributes(table, ["truth"])
    named = {text.get_text().rpartition(" (")[0] for text in fig.axes[0].get_yticklabels()}
    assert named == {"all", *bench.attributes} and fig.axes[0].get_yticklabels()[0].get_text() == "all (34)"
    assert "95 % CI" in fig.get_supxlabel()
    rows = figures.lines(bench, {"true": bench.after}, without=["site"], most=3)
    assert not any(asked.startswith("site") for asked, _ in rows)
    assert len(rows) == 3 and all(list(pictures) == ["film", "true"] for _, pictures in rows)
    fig = figures.draw_films(rows)
    assert [ax.get_title() for ax in fig.axes[:2]] == ["film", "true"]
    assert fig.axes[0].get_ylabel().replace("\n", " ") == rows[0][0]
    assert all(0 <= pictures["film"].min() and np.max(pictures["film"]) <= 1 for _, pictures in rows)


def test_changes_are_worded():
    words = [figures._asked(pair) for pair in drawn_films(34).pairs]
    assert words[0].startswith("age: ") and "Cardiomegaly: gone" in words and "No Finding: alone" in words
