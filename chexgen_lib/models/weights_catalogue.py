"""The weights of others that profiles and commands name, from weights_catalogue.toml.

`chexgen weights` lists, fetches, adds and checks them. The loaders find them where their libraries keep downloads: the
cache of the Hugging Face hub, torchxrayvision's folder and torch's.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

HUB, XRV, TORCH, REQUEST, SHIPPED, OWN = "hub", "torchxrayvision", "torch", "request", "shipped", "own"


class WeightsFileError(ValueError):
    """Weights that are missing, damaged, of another kind or not to be had; the message says what to do."""


@dataclass(frozen=True)
class File:
    """A file of a weight.

    Attributes:
        path: below the weight's folder; for a pipeline also a pattern of `Path.glob`.
        size: bytes, where they are known.
        sha256: its hexadecimal digits, or the first ones where the publisher states no more; None if not known.
    """

    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Weight:
    """Weights that somebody else trained.

    Attributes:
        name: as `chexgen weights` calls it.
        purpose: what it does here.
        layout: what its loader expects to find, a key of `weights_layout.LAYOUTS` or of `weights_layout.SINGLE`.
        store: where it is kept: in the cache of the hub, torchxrayvision's folder, torch's, the folder `data/weights`
            (REQUEST: given on application, a command names the file), in the package itself, or where the user says.
        source: id on the hub, or address of the file; of a shipped one its package; of the user's own its folder or id.
        licence: terms.
        size: bytes of all files, None where nobody states them.
        files: those that the loader reads.
        asked: kind of setting and value by which a profile asks for it (`settings`); None if no profile can.
        revision: commit on the hub to which the files belong.
        expects: entries of its configuration by which a model of another size is told.
        access: how to get permission; empty where none is needed.
    """

    name: str
    purpose: str
    layout: str
    store: str
    source: str
    licence: str
    size: int | None = None
    files: tuple[File, ...] = ()
    asked: tuple[str, str] | None = None
    revision: str | None = None
    expects: Mapping[str, Any] = field(default_factory=dict, hash=False)
    access: str = ""


def _weight(entry: dict[str, Any]) -> Weight:
    asked = entry.get("asked")
    parts = tuple(File(**file) for file in entry.get("files", ()))
    return Weight(**entry | {"files": parts, "asked": None if asked is None else tuple(asked)})


_ENTRIES = tomllib.loads((files(__package__) / "weights_catalogue.toml").read_text(encoding="utf-8"))["weights"]
CATALOGUE = tuple(map(_weight, _ENTRIES))
# Settings that name weights, and the kind of what they name; "*" is any section.
KINDS = {
    "*.autoencoder": "autoencoder",
    "*.text_encoder": "text encoder",
    "*.embedders": "embedder",
    "quality.scorer": "scorer",
    "*.start": "start",
    "*.starts": "start",
    "baseline.weights": "pipeline",
    "counterfactuals.weights": "transformer",
    "pretraining.weights": "transformer",
    "*.generators": "pipeline",
}
PACKAGED = ("shipped", "shipped-adapter", "shipped-distilled")  # a test keeps them equal to `foundation`'s
LAYOUT_OF_OWN = {kind: kind for kind in ("autoencoder", "text encoder", "transformer", "pipeline")}


def named(name: str) -> Weight:
    """The weight of a name in the catalogue.

    Raises:
        WeightsFileError: if there is none.
    """
    for weight in CATALOGUE:
        if weight.name == name:
            return weight
    raise WeightsFileError(f"no weights {name!r}: choose from {', '.join(weight.name for weight in CATALOGUE)}")


def asked_by(params: Mapping[str, Any]) -> dict[Weight, list[str]]:
    """The weights that a composed profile names, each with the settings that name it ("cohort.autoencoder").

    A setting may also hold a folder or another id of the hub; the weight then carries the store `OWN` and that name.
    Values that need no weights (null, the run's own classifier, a generator that is no pipeline) are left out.
    """
    found: dict[str, tuple[Weight, list[str]]] = {}
    for setting, kind, value in _settings(params):
        weight = next((w for w in CATALOGUE if w.asked == (kind, value)), None)
        if weight is None and kind in LAYOUT_OF_OWN and not _needs_none(kind, value):
            weight = Weight(value, f"your own {kind}", LAYOUT_OF_OWN[kind], OWN, value, "yours to know")
        if weight is not None:
            found.setdefault(weight.name, (weight, []))[1].append(setting)
    return dict(found.values())


def _needs_none(kind: str, value: str) -> bool:
    """Whether it is what the package ships, or a generator that is a file or folder (a model of a run, images).

    Stage 06 tries such a file or folder itself.
    """
    path = Path(value).expanduser()
    shipped = kind in ("pipeline", "transformer") and value in PACKAGED
    return shipped or kind == "pipeline" and path.exists() and not (path / "model_index.json").is_file()


def _settings(params: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for section, values in params.items():
        for key, given in values.items() if isinstance(values, Mapping) else ():
            kind = KINDS.get(f"{section}.{key}") or KINDS.get(f"*.{key}")
            given = list(given.values()) if isinstance(given, Mapping) else given
            for value in given if isinstance(given, list) else [given]:
                if kind and isinstance(value, str):
                    yield f"{section}.{key}", kind, value
