"""Files of readers are complete, of this study and as they were exported, or an error names file and item."""

import json

import pytest

from chexgen_lib.quality.readers import answers
from chexgen_lib.quality.readers.answers import AnswersError


@pytest.fixture
def filled(study, fill, obvious):
    return fill(study, "A", obvious), fill(study, "B", obvious)


def change(path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_answers_are_unblinded_by_the_key(study, filled):
    table, key = answers.read(study), answers.read_key(study)
    items = [item for reader in ("A", "B") for item in key["readers"][reader]]
    assert table["item"].to_list() == [item["item"] for item in items]
    assert table["arm"].to_list() == [item["arm"] for item in items]
    assert table["case"].to_list() == [item["case"] for item in items]
    assert set(table.filter(task="agreement")["answer"]) == {"1"} and set(table["seconds"]) == {3.0}
    pairs = table.filter(task="pairs")
    assert set(pairs["films"].list.get(0)) == {"real", "ours", "other"} and pairs["films"].null_count() == 0


def test_the_order_of_rows_does_not_matter_and_a_reader_may_be_absent(study, filled):
    whole = answers.read(study)
    change(filled[0], lambda content: content["answers"].reverse())
    assert answers.read(study).equals(whole)
    filled[1].unlink()
    assert set(answers.read(study)["reader"]) == {"A"}
    filled[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"answers holds no file: put the readers' exported \*.json there"):
        answers.read(study)


def test_a_file_in_a_folder_of_its_own_is_read(study, filled):
    whole = answers.read(study)
    own = filled[1].parent / "returned" / "B"
    own.mkdir(parents=True)
    filled[1].rename(own / "answers.json")
    (own.parent / "__MACOSX").mkdir()
    (own.parent / "__MACOSX" / "._answers.json").write_bytes(b"\0\5\x16\7")
    assert answers.read(study).equals(whole)
    change(own / "answers.json", lambda content: content["answers"].pop())
    (own.parent / "answers.json").write_text(json.dumps(json.loads(filled[0].read_text()) | {"reader": "B"}))
    with pytest.raises(AnswersError, match=r"answers.json: 'B' answered in returned/B/answers.json too"):
        answers.read(study)


def test_half_done(study, filled):
    key = answers.read_key(study)["readers"]["B"]
    change(filled[1], lambda content: content["answers"].__delitem__(slice(10, None)))
    with pytest.raises(
        AnswersError, match=rf"B.json, item {key[10]['item']} \(realism, film 11 of \d+\).*10 of \d+ are"
    ):
        answers.read(study)


@pytest.mark.parametrize("field", ["answer", "seconds", "check"])
def test_edited_by_hand(study, filled, field):
    content = json.loads(filled[0].read_text())
    item = content["answers"][5]["item"]
    change(filled[0], lambda content: content["answers"][5].update({field: "2"}))
    with pytest.raises(AnswersError, match=rf"A.json, item {item}: changed after the export"):
        answers.read(study)


def test_a_right_check_of_a_wrong_answer(study, filled):
    content = json.loads(filled[0].read_text())

    def forge(content):
        row = content["answers"][0] | {"answer": "maybe"}
        row["check"] = answers.check(content["study"], "A", row["item"], "maybe", row["seconds"])
        content["answers"][0] = row

    def mistime(content):
        row = content["answers"][0] | {"seconds": "long"}
        row["check"] = answers.check(content["study"], "A", row["item"], row["answer"], "long")
        content["answers"][0] = row

    change(filled[0], mistime)
    with pytest.raises(AnswersError, match=rf"A.json, item {content['answers'][0]['item']}: changed after the export"):
        answers.read(study)
    filled[0].write_text(json.dumps(content))
    change(filled[0], forge)
    with pytest.raises(AnswersError, match=rf"item {content['answers'][0]['item']}: 'maybe' is no answer to realism"):
        answers.read(study)


@pytest.mark.parametrize("ticked", ["No Finding;Edema", "Oedema", ""])
def test_impossible_findings(study, fill, obvious, ticked):
    fill(study, "A", lambda item: ticked if item["task"] == "assisted" else obvious(item))
    with pytest.raises(AnswersError, match="no answer to assisted"):
        answers.read(study)


def test_rows_that_are_unknown_or_repeated(study, filled):
    first, second = (json.loads(path.read_text())["answers"] for path in filled)
    change(filled[0], lambda content: content["answers"].append(first[0]))
    with pytest.raises(AnswersError, match=f"A.json, item {first[0]['item']}: answered twice"):
        answers.read(study)
    change(filled[0], lambda content: content.update(answers=[*first, second[0]]))
    with pytest.raises(AnswersError, match=f"A.json, row {len(first) + 1}: item '{second[0]['item']}' is not in 'A'"):
        answers.read(study)
    change(filled[0], lambda content: content.update(answers=["yes"]))
    with pytest.raises(AnswersError, match="A.json, row 1"):
        answers.read(study)


def test_files_of_another_study_reader_or_kind(study, filled):
    whole = filled[0].read_text()
    for edit, message in (
        ({"study": "0123"}, "A.json: answers of study '0123'"),
        ({"reader": "C"}, "A.json: no reader 'C' here; known: A, B"),
        ({"reader": "B"}, "A.json"),
        ({"format": "1"}, "A.json: not a file"),
        ({"answers": None}, "A.json: not a file"),
    ):
        change(filled[0], lambda content, edit=edit: content.update(edit))
        with pytest.raises(AnswersError, match=message):
            answers.read(study)
        filled[0].write_text(whole)
    filled[0].with_name("A2.json").write_text(whole[:100])
    with pytest.raises(AnswersError, match="A2.json: not a file that a form exported"):
        answers.read(study)


def test_two_files_of_a_reader(study, filled):
    """Mail brings one file twice; a part that was exported on the way lies beside the whole, under any name."""
    whole = answers.read(study)
    twin, first = filled[0].with_name("A (1).json"), filled[0].with_name("0.json")
    twin.write_text(filled[0].read_text())
    assert answers.read(study).equals(whole)
    twin.rename(first)
    change(first, lambda content: content["answers"].__delitem__(slice(10, None)))
    n = len(json.loads(filled[0].read_text())["answers"])
    with pytest.raises(AnswersError, match=rf"A.json: 'A' answered in 0.json too \({n} answers here, 10 there\); keep"):
        answers.read(study)


def test_without_a_key(study, filled):
    (study / "key.json").unlink()
    with pytest.raises(FileNotFoundError, match="unblinded"):
        answers.read(study)


@pytest.mark.parametrize(
    ("content", "message"), [('{"study": ', "Expecting value"), ("{}", "it has no study"), ("null", "NoneType")]
)
def test_a_damaged_key(study, filled, content, message):
    (study / "key.json").write_text(content)
    with pytest.raises(AnswersError, match=rf"key.json is damaged \(.*{message}.*\): restore it"):
        answers.read(study)


def test_a_file_is_read_under_any_name(study, filled):
    whole = answers.read(study)
    filled[0].write_text(filled[0].read_text(), encoding="utf-8-sig")  # as editors save it
    filled[0].rename(filled[0].with_name("A.json.txt"))
    filled[1].rename(filled[1].with_name("B (1).JSON"))
    (study / "answers/.DS_Store").write_bytes(b"\0\1")
    assert answers.read(study).equals(whole)
    (study / "answers/notes.txt").write_text("Bob is on leave.")
    with pytest.raises(AnswersError, match="notes.txt: not a file that a form exported .*; take it out, or ask"):
        answers.read(study)
    (study / "answers/notes.txt").write_text("[" * 100_000)
    with pytest.raises(AnswersError, match="notes.txt: not a file that a form exported"):
        answers.read(study)
