"""Settings beside a profile, `key=value`: split, compared with the profiles' types, and written as Hydra reads them.

Left to itself, Hydra merges mappings, makes 202401 of the folder 2024_01 and a true text of `no`, and refuses paths
with brackets, `=` or accents. The profiles tell what type a setting has: a text is taken as it stands, and what would
be merged or would change its type is refused with the form that works.
"""

import copy
import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chexgen_lib.workflow.notebooks import NotebookError

NONE = type(None)
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list [a, b]",
         dict: "a mapping", NONE: "null"}  # fmt: skip
START = re.compile(r"[+]{0,2}[A-Za-z_][\w.@-]*=|~[\w.@-]+(?==|\s|$)")
QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
UNDERSCORED = re.compile(r"(?<![\w./-])\d+(?:_\d+)+(?![\w./-])")  # of which Hydra makes a number
NOTHING = ("none", "nil", "~")  # of other languages; only null is nothing in Hydra's
MISSING, UNREADABLE = object(), object()


def split(text: str, profile: dict[str, Any]) -> list[str]:
    """The settings in one text, separated by spaces; a value may hold spaces too, a path for example.

    Args:
        text: "seed=1 curation.image_folder=/data/my images".
        profile: the composed values, whose keys begin a new setting.

    Raises:
        NotebookError: for text before the first key, or where a new key may as well belong to the value before it.
    """
    found, rest = [], text.replace("\\\n", " ").strip()
    while rest:
        start = START.match(rest)
        if start is None:
            raise NotebookError(f"SET: {rest.split()[0]!r} is no setting: write SET='section.key=value seed=1'")
        end = start.end() + _length(rest[start.end() :], start[0], profile)
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
        if rest and found[-1][-1] in ",;":
            raise NotebookError(
                f"SET: {found[-1]!r} ends in {found[-1][-1]!r}: settings are separated by spaces alone; put the value "
                "into quotes if it belongs to it"
            )
    return found


def _length(text: str, start: str, profile: dict[str, Any]) -> int:
    """Characters of the value that `text` begins with."""
    closed = QUOTED.match(text) or _bracketed(text)
    if closed is not None:
        length = closed.end() if isinstance(closed, re.Match) else closed
        if not text[length:].strip() or text[length].isspace():
            return length
    unknown = None
    for gap in re.finditer(r"\s+", text):
        following = START.match(text, gap.end())
        if following is None:
            continue
        key = following[0].rstrip("=")
        if key[0] in "+~" or "@" in key or _at(profile, key) is not MISSING:
            text = text[: gap.start()]
            break
        unknown = unknown or key
    if unknown and not Path(text.strip()).exists():
        raise NotebookError(
            f"SET: no setting {unknown!r}{_similar(profile, unknown)}; if it belongs to the value before it, put that "
            f"into quotes: SET=\"{start}'{text.strip()}'\""
        )
    return len(text)


def _bracketed(text: str) -> int | None:
    """Characters up to the bracket that closes the one at the start."""
    depth, at = 0, 0
    while at < len(text) and (depth or text[at] in "[{"):
        quoted = QUOTED.match(text, at)
        depth += (text[at] in "[{") - (text[at] in "]}")
        at = quoted.end() if quoted else at + 1
        if not depth:
            return at
    return None


def for_hydra(settings: Iterable[str], profiles: list[dict[str, Any]]) -> list[str]:
    """The settings as Hydra reads what was meant.

    Args:
        settings: `key=value` with Hydra's prefixes `+`, `++` and `~`, one each.
        profiles: composed values, first of the profile that the settings change; the others tell further types.

    Raises:
        NotebookError: for an unknown key, a value of another type, or a mapping that would be merged.
    """
    profiles = copy.deepcopy(profiles)
    given = list(settings)
    names = [setting.strip().lstrip("+").partition("=")[0] for setting in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise NotebookError(f"{twice} is given twice, and one of its values would be lost: give it once")
    return [part for setting in given for part in _for_hydra(setting, profiles)]


def _for_hydra(setting: str, profiles: list[dict[str, Any]]) -> list[str]:
    if setting.startswith("~"):
        key = setting[1:].partition("=")[0]
        value = _at(profiles[0], key)
        if value is MISSING and "@" not in key:
            raise NotebookError(f"{setting}: no setting {key!r}{_similar(profiles[0], key)}")
        for profile in profiles:
            _remove(profile, key)
        null = value is None and setting.endswith(key)
        return [f"{key}=''"] * null + [setting]  # Hydra does not find a key that is null
    parts = re.fullmatch(r"\s*([+]{0,2})([^\s=]+)\s*=(.*)", setting, re.DOTALL)
    if parts is None:
        raise NotebookError(f"{setting!r} is no setting: write section.key=value")
    mark, key, text = parts[1], parts[2], parts[3].strip()
    if key == "profile":
        raise NotebookError(f"{setting}: another profile is chosen by PROFILE={text}, not by SET")
    if "@" in key:  # a group of Hydra's
        return [setting]
    values = [_at(profile, key) for profile in profiles]
    if values[0] is MISSING and not mark:
        raise NotebookError(f"{setting}: no setting {key!r}{_similar(profiles[0], key)}")
    known = [value for value in values if value is not MISSING] or [None]  # of a new one any type
    return [f"{mark}{key}={_value(key, text, known, mark)}"]


def _value(key: str, text: str, values: list[Any], mark: str) -> str:
    """The text of a value as Hydra shall read it; values: those of the profiles, the changed one's first."""
    given, known = _parsed(text), {type(value) for value in values}
    unknown = known == {NONE}
    if isinstance(given, dict) and (dict in known or unknown):
        _check_mapping(key, given, values[0], text)
        _check_new(key, given, values[0], text, mark)
        return text
    if isinstance(given, list) and (list in known or unknown):
        _check_elements(key, given, [value for value in values if isinstance(value, list)])
        return text
    number = isinstance(given, bool | int | float)
    if _fits(given, known) and (number or given is None) or unknown and number and "_" not in text:
        return text
    if str not in known and not unknown:
        raise _refusal(key, text, given, known)
    if text.casefold() in NOTHING and NONE in known:
        raise NotebookError(
            f"{key}={text} is a text here, not nothing: for nothing write {mark}{key}=null, for the text "
            f'SET="{mark}{key}={_quoted(text)}"'
        )
    if not text or given is None or isinstance(given, list | dict) or unknown and (number or text[0] in "[{"):
        also = f', for a number SET="{mark}{key}={given}"' if number else ""
        meant = " (a mapping is {name: value}, its names without quotes)" * (given is UNREADABLE and text[:1] == "{")
        raise NotebookError(
            f'{key}={text} is no text as it stands{meant}: for a text write SET="{mark}{key}={_quoted(text)}"{also}'
        )
    if text.startswith("~/"):  # within quotes, as those of SET, no shell puts in the home
        text = given = os.path.expanduser(text)
    call = re.match(r"\w+\s*\(", text)  # a function of Hydra's
    network = text.startswith(r"\\")  # of whose two backslashes Hydra would take one away
    return _quoted(given if isinstance(given, str) and not call and not network else text)


def _check_new(key: str, given: dict, base: Any, text: str, mark: str) -> None:
    """Raise for names that the profile's mapping has not, or a value of unknown type that may be a number or a text."""
    if isinstance(base, dict):
        if mark != "++" and (new := [str(name) for name in given if name not in base]):
            raise NotebookError(
                f'{key}={text}: the profile has no {", ".join(new)} there: to add it, write SET="++{key}={text}"'
            )
    elif number := UNDERSCORED.search(QUOTED.sub("''", text)):
        raise NotebookError(f"{key}={text}: {number[0]} is a text or a number: write '{number[0]}', or leave out the _")


def _refusal(key: str, text: str, given: Any, known: set[type]) -> NotebookError:
    wanted = " or ".join(NAMES[kind] for kind in NAMES if kind in known)
    elements = [] if given is None else filter(None, re.split(r"[;,]\s*", text.strip("[](){} ")))
    form = {bool: f"{key}=true or {key}=false", list: f"{key}=[{','.join(elements)}]"}
    form |= {dict: f"{key}.NAME=value, for a key of it"}
    forms = [form[kind] for kind in form if kind in known and text]
    if isinstance(given, float) and given.is_integer() and int in known:
        forms = [f"{key}={given:.0f}"]
    if NONE in known and text.casefold() in NOTHING:
        forms = [f"{key}=null"]
    remedy = f": write {' or '.join(forms)}" if forms else ""
    return NotebookError(f"{key}={text}: the profile has {wanted} there, and this is none{remedy}")


def _check_mapping(key: str, given: dict, base: Any, text: str) -> None:
    """Raise where merging `given` into `base` would not give `given`, or would change a type."""
    if not isinstance(base, dict):
        return
    if left := [str(name) for name in base if name not in given]:
        raise NotebookError(
            f"{key}={text}: mappings are merged, so {', '.join(left)} would stay as in the profile. To change one key, "
            f'write {key}.NAME=value; to replace all, SET="~{key} +{key}={text}"'
        )
    for name in given.keys() & base.keys():
        if isinstance(given[name], dict) and isinstance(base[name], dict):
            _check_mapping(f"{key}.{name}", given[name], base[name], str(given[name]).replace("'", ""))
        elif base[name] is not None and not _fits(given[name], {type(base[name])}):
            raise _refusal(f"{key}.{name}", str(given[name]), given[name], {type(base[name])})


def _check_elements(key: str, given: list, lists: list[list]) -> None:
    known = {type(element) for elements in lists for element in elements}
    for element in given if known else []:
        if not _fits(element, known):
            wanted = " or ".join(NAMES[kind] for kind in NAMES if kind in known)
            remedy = ": write it in quotes, as '2024_01'" if str in known and isinstance(element, int | float) else ""
            raise NotebookError(f"{key}: the profile's list has {wanted}, and {element!r} is none{remedy}")


def _fits(value: Any, known: set[type]) -> bool:
    return type(value) in known or (type(value) is int and float in known)


def _parsed(text: str) -> Any:
    """What Hydra makes of the text of a value, UNREADABLE where it is none or several to sweep over."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"key={text}")
        return UNREADABLE if override.is_sweep_override() else override.value()
    except HydraException:
        return UNREADABLE


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def _at(node: Any, key: str) -> Any:
    """The value at a dotted key, or MISSING."""
    for part in key.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return MISSING
    return node


def _remove(node: Any, key: str) -> None:
    above, _, name = key.rpartition(".")
    node = _at(node, above) if above else node
    if isinstance(node, dict):
        node.pop(name, None)


def _similar(profile: dict[str, Any], key: str) -> str:
    close = difflib.get_close_matches(key, _keys(profile), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _keys(node: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{name}.")
