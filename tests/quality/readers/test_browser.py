"""A reader in a real browser: answer, close, open again, go on, export; then the file is scored."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from chexgen_lib.cli import main as cli
from chexgen_lib.quality import reader_study
from chexgen_lib.quality.readers import answers, design, form, material
from tests.quality.readers.devtools import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def small(folders) -> material.Material:
    return material.load(folders["cohort"], {"ours": folders["synthesis"]}, 32)


@pytest.fixture
def form_of_a(small, tmp_path) -> Path:
    """The form of reader A: 3 cases a task, one arm, 30 questions."""
    form.write(tmp_path / "study", design.make(small, design.TASKS, ["A"], 3, seed=1), small, "Films & more", {})
    return tmp_path / "study/forms/A.html"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def running(downloads, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"), downloads)
    yield browser
    browser.close()


@pytest.fixture
def browser(running, form_of_a):
    """A browser that has never seen the form, and has it open."""
    running.open(form_of_a)
    yield running
    forget(running)
    running.resize(1280, 800)
    assert running.thrown == []


def forget(browser) -> None:
    """Make the browser one that has never seen the form; the open page keeps nothing any more."""
    browser.run("keep = () => {}; localStorage.clear()")


def begin(browser) -> None:
    browser.click("#between-go")
    browser.wait("films.length && films.every((film) => film.grey)")


def answer(browser, keys: str) -> str:
    """Answer the film on the screen with keys and go on; its id."""
    item = browser.run("current().id")
    for key in keys:
        browser.key(key)
    browser.key("Enter")
    return item


def export(browser, downloads: Path) -> dict:
    for old in downloads.iterdir():
        old.unlink()
    browser.save("#export")
    (file,) = downloads.glob("*.json")
    return json.loads(file.read_text())


KEYS = {"Real": "2", "Which": "1", "Agreement": "4", "Findings": "6b"}
ANSWERS = {"Real": "synthetic", "Which": "A", "Agreement": "1", "Findings": "Edema;Effusion"}


def test_five_answers_close_open_go_on_export_score(form_of_a, downloads, tmp_path, capsys):
    with closing(Browser(tmp_path / "profile", downloads)) as browser:
        browser.open(form_of_a)
        assert browser.run("document.title") == "Films & more"
        begin(browser)
        given = {answer(browser, "12"[k % 2]): ["real", "synthetic"][k % 2] for k in range(5)}

    with closing(Browser(tmp_path / "profile", downloads)) as browser:
        browser.open(form_of_a)
        assert browser.run("$('count').textContent") == "5 of 30 answered"
        assert "part 1 of 7, film 6 of 6" in browser.run("$('place').textContent")
        browser.key("Backspace")
        assert browser.run("document.querySelector(':checked').value") == given[browser.run("current().id")]
        browser.key("Enter")
        given[answer(browser, "2")] = "synthetic"
        browser.click("#between-go")  # finish the part
        while not (title := browser.run("$('between-title').textContent")).startswith("All done"):
            begin(browser)
            kind = title.split()[0].rstrip("?")
            for _ in range(browser.run("block().items.length")):
                given[answer(browser, KEYS[kind])] = ANSWERS[kind]
            browser.click("#between-go")
        exported = export(browser, downloads)
        assert browser.thrown == []
    assert {row["item"]: row["answer"] for row in exported["answers"]} == given and len(given) == 30

    study = form_of_a.parents[1]
    (name,) = downloads.glob("*.json")
    shutil.copy(name, study / "answers" / name.name)
    assert cli.main(["readers", "score", str(study), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "mean score" in printed and "no answers yet: none missing" in printed
    table = pl.read_csv(study / "answers.csv")
    assert dict(table.select("item", "answer").iter_rows()) == given
    assert set(reader_study.read(study)["score"]) == {1}


def test_parts_are_finished_whole_and_then_closed(browser):
    begin(browser)
    skipped = browser.run("current().id")
    browser.key("Enter")
    for _ in range(5):
        answer(browser, "1")
    assert browser.run("$('between-text').textContent").startswith("1 of 6 films")
    browser.click("#between-go")
    assert browser.run("current().id") == skipped
    answer(browser, "1")
    for _ in range(5):
        browser.key("Enter")
    assert browser.run("$('between-go').textContent") == "Finish this part"
    browser.click("#between-back")
    assert "film 6 of 6" in browser.run("$('place').textContent")
    browser.key("Enter")
    browser.click("#between-go")
    browser.key("Backspace")
    assert browser.run("$('between-title').textContent") == "Which one is real?"
    assert browser.run("$('between-back').hidden")


def test_an_answer_can_be_changed_and_no_finding_excludes_the_others(browser):
    browser.run("Object.assign(state, {block: study.blocks.length - 1, item: 0, begun: true}); render()")
    stored = "state.answers[current().id]"
    for key, expected in (("6", "Edema"), ("b", "Edema;Effusion"), ("1", "No Finding"), ("3", "Cardiomegaly")):
        browser.key(key)
        assert browser.run(stored) == expected
    browser.key("3")
    assert browser.run(f"{stored} === undefined") and browser.run("$('next').textContent") == "Skip for now"


def test_window_level_zoom_and_reset(browser):
    begin(browser)
    middle = "c.getContext('2d').getImageData(c.width / 2, c.height / 2, 40, 40).data.join()"
    grey = f"((c) => {middle})(films[0].canvas)"
    before = browser.run(grey)
    browser.drag("canvas", -120, 30)
    assert browser.run("[films[0].width, films[0].level]") == [135, 142.5]
    assert browser.run(grey) != before
    browser.key("+")
    assert browser.run("films[0].scale") == 1.25 and "zoom 1.3" in browser.run("$('display').textContent")
    browser.key("i")
    assert browser.run("$('invert').getAttribute('aria-pressed')") == "true"
    browser.key("r")
    assert browser.run(grey) == before
    answer(browser, "1")
    assert browser.run("films[0].width") == 255  # the next film is shown as it is


def test_greys_are_those_of_the_image(browser, form_of_a, small):
    """What is on the canvas without a window is the image's own grey, pixel by pixel."""
    begin(browser)
    item = browser.run("current().id")
    told = next(row for row in answers.read_key(form_of_a.parents[1])["readers"]["A"] if row["item"] == item)
    row = small.records["image_id"].to_list().index(told["case"])
    pixels = browser.run(
        "[...films[0].shown.getContext('2d').getImageData(0, 0, 32, 32).data].filter((_, k) => k % 4 == 0)"
    )
    assert pixels == small.images[told["arm"]][row].reshape(-1).tolist()


def test_answers_move_to_another_browser_but_not_if_edited(browser, form_of_a, downloads):
    begin(browser)
    for _ in range(4):
        answer(browser, "2")
    exported = export(browser, downloads)
    assert len(exported["answers"]) == 4 and exported["items"] == 30
    forget(browser)
    browser.open(form_of_a)
    assert browser.run("$('count').textContent") == "0 of 30 answered"
    edited = json.loads(json.dumps(exported))
    edited["answers"][1]["answer"] = "real"
    load = "load({{text: async () => {}}}).then(() => 'loaded', (error) => error.message)"
    assert "was changed" in browser.run(load.format(json.dumps(json.dumps(edited))))
    assert "another study" in browser.run(load.format(json.dumps(json.dumps(exported | {"reader": "B"}))))
    assert browser.run("$('count').textContent") == "0 of 30 answered"
    assert browser.run(load.format(json.dumps(json.dumps(exported)))) == "loaded"
    assert browser.run("$('count').textContent") == "4 of 30 answered"


def test_answers_that_a_browser_has_stay_beside_those_that_are_loaded(browser, form_of_a, downloads):
    begin(browser)
    there = [answer(browser, "2") for _ in range(4)]
    exported = export(browser, downloads)
    forget(browser)
    browser.open(form_of_a)
    begin(browser)
    browser.key("Enter")
    here = [answer(browser, key) for key in "121"]  # the second film as before, the others not
    load = f"load({{name: 'A.json', text: async () => {json.dumps(json.dumps(exported))}}})"
    assert browser.run(load) == "2 films have another answer in A.json: those given here stay."
    expected = dict.fromkeys(there, "synthetic") | dict(zip(here, ("real", "synthetic", "real"), strict=True))
    assert browser.run("state.answers") == expected and len(expected) == 4
    assert browser.run(load) == "2 films have another answer in A.json: those given here stay."


@pytest.mark.parametrize("screen", [(1280, 800), (390, 844, True)])
def test_nothing_is_cut_off_and_every_control_has_a_name(browser, screen):
    browser.resize(*screen)
    for block in range(browser.run("study.blocks.length")):
        browser.run(f"Object.assign(state, {{block: {block}, item: 0, begun: true}}); render()")
        browser.wait("films.every((film) => film.grey)")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        boxes = "[...document.querySelectorAll('header *, #question *, .tools *')].filter((e) => e.clientWidth)"
        wide = f"{boxes}.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML)"
        assert browser.run(wide) == []
        assert browser.run("films.every((film) => film.canvas.clientHeight > 200)")
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        n for n in tree if n.get("role", {}).get("value") in ("button", "radio", "checkbox", "image", "progressbar")
    ]
    assert len(controls) > 20 and all(n["name"]["value"] for n in controls if not n["ignored"])


def test_a_browser_that_cannot_show_the_form_says_so(browser, form_of_a, tmp_path):
    assert browser.run("$('unable') === null")
    page = form_of_a.read_text()
    (tmp_path / "half.html").write_text(page[: page.index('type="application/json"') + 500])
    (tmp_path / "old.html").write_text(page.replace("const study =", "const study ??==="))  # unknown syntax
    for name in ("half", "old"):
        browser.open(tmp_path / f"{name}.html")
        assert browser.run("document.getElementById('unable').clientHeight > 10")
    browser.open(form_of_a)
    browser.thrown.clear()


def test_what_fails_later_is_said(browser, form_of_a):
    browser.run("study.images.fill('no picture'); begin()")
    browser.wait("$('warning').textContent.startsWith('Something failed in this browser')")
    browser.thrown.clear()


def test_a_browser_that_adds_noise_says_so(browser):
    assert browser.run("readsTruly()")
    browser.run(
        "const read = CanvasRenderingContext2D.prototype.getImageData;"
        "CanvasRenderingContext2D.prototype.getImageData = function (...box) {"
        "  const found = read.apply(this, box); found.data[40] ^= 1; return found; }"
    )
    assert not browser.run("readsTruly()")


@pytest.mark.parametrize("knows", [True, False])
def test_help_opens_and_closes_also_where_dialogs_are_unknown(browser, knows):
    if not knows:
        browser.run("delete HTMLDialogElement.prototype.showModal")
    shown = "$('help').getBoundingClientRect().height > 100"
    for leave in (lambda: browser.click("#close-help"), lambda: browser.key("Escape")):
        assert not browser.run(shown)
        browser.key("?")
        assert browser.run(shown)
        leave()
    assert not browser.run(shown)


def test_a_browser_that_keeps_nothing_says_so(browser):
    browser.run("Storage.prototype.setItem = () => { throw new Error('full') }")
    begin(browser)
    answer(browser, "1")
    assert "Export the answers before you close" in browser.run("$('warning').textContent")
