"""Graphs as data: what the shipped one says, and what a graph may not be."""

import polars as pl
import pytest

from chexgen_lib.causal.graph import CausalError, make_graph, read_graph
from chexgen_lib.records import SCHEMA


def arrow(cause, effect, because="assumption"):
    return {"from": [cause], "to": [effect], "because": because}


def test_the_shipped_graph_is_of_records_and_every_arrow_has_a_reason():
    graph = read_graph()
    assert set(graph.kinds) <= set(SCHEMA) and all(graph.because.values())
    place = {v: graph.order.index(v) for v in graph.kinds}
    assert all(place[cause] < place[effect] for cause, effect in graph.because)
    assert graph.order[0] == "source" and "view" in graph.descendants("Edema") and "age" not in graph.descendants("sex")


def test_causes_and_what_they_reach():
    graph = make_graph(dict.fromkeys("abcd", "choice"), [arrow("a", "b"), arrow("b", "c")])
    assert graph.parents == {"a": [], "b": ["a"], "c": ["b"], "d": []}
    assert graph.descendants("a") == {"b", "c"} and graph.descendants("d") == set()


def test_one_cause_or_effect_needs_no_brackets():
    kinds = dict.fromkeys("abc", "choice")
    plain = (
        {"from": "a", "to": ["b", "c"], "because": "assumption"},
        {"from": ["b"], "to": "c", "because": "assumption"},
    )
    assert make_graph(kinds, list(plain)).parents == {"a": [], "b": ["a"], "c": ["a", "b"]}


@pytest.mark.parametrize(
    ("arrows", "words"),
    [
        ([arrow("a", "b"), arrow("b", "a")], "a cycle, "),
        ([arrow("a", "a")], "a cycle, a -> a"),
        ([arrow("a", "z")], "arrow a -> z: 'z' is no variable"),
        ([arrow("a", "b"), arrow("a", "b")], "arrow a -> b is there twice"),
        ([arrow("a", "b", "")], "because, its reason"),
        ([{"from": ["a"], "to": ["b"]}], "because, its reason"),
        ([{"from": {"a": 1}, "to": ["b"], "because": "assumption"}], "a variable or several in brackets"),
        (["a -> b"], "arrow a -> b needs"),
        ([{"from": [], "to": ["b"], "because": "assumption"}], "needs from and to"),
        ([{"from": ["a", ["b"]], "to": ["b"], "because": "assumption"}], "needs from and to"),
    ],
)
def test_what_is_no_graph_is_refused(arrows, words):
    with pytest.raises(CausalError, match=words):
        make_graph({"a": "number", "b": "choice"}, arrows)


def test_files_and_kinds_are_checked(tmp_path):
    with pytest.raises(CausalError, match="a is of kind 'colour'"):
        make_graph({"a": "colour"}, [])
    (tmp_path / "graph.yaml").write_text("variables: {a: [")
    for path, words in ((tmp_path / "none.yaml", "cannot be read"), (tmp_path / "graph.yaml", "cannot be read")):
        with pytest.raises(CausalError, match=words):
            read_graph(path)
    for text in ("variables: {a: choice}", "variables: [a]\narrows: []", "variables: {a: choice}\narrows:", "- a"):
        (tmp_path / "graph.yaml").write_text(text)
        with pytest.raises(CausalError, match="needs `variables`"):
            read_graph(tmp_path / "graph.yaml")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"a": [1.0, 2.0]}, "the table lacks b"),
        ({"a": [1.0, 1.0], "b": ["x", "y"]}, "a: the table has fewer than two values"),
        ({"a": ["1", "2"], "b": ["x", "y"]}, "a: is String in the table, and a number in the graph"),
        ({"a": [1.0, 2.0, float("nan")], "b": ["x", "y", "x"]}, "a: NaN or infinite in 1 rows: write null"),
        ({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, float("nan")]}, "b: NaN or infinite in 1 rows: write null"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, words):
    graph = make_graph({"a": "number", "b": "choice"}, [arrow("a", "b")])
    with pytest.raises(CausalError, match=words):
        graph.check_table(pl.DataFrame(table))
