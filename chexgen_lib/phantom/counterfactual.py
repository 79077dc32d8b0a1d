"""True counterfactuals: the same body, beam and noise with one attribute changed, rendered.

    pair = counterfactual(record, {"Effusion": {"side": "left", "severity": "severe"}})
    pair.before.image, pair.after.image, pair.region

No patient has a counterfactual film; a rendered one does. Both films of a pair have the same `image_id` and
`patient_id`, and every random choice of the renderer has a generator of its own that depends on these alone, so that a
change draws nothing else anew. What does follow from a change, because it is what the attribute means here:

| change | what else of the body or the beam |
|---|---|
| age | the bones, calcifications, heart, spine and, below 18 years, the size of the chest; the breasts of a girl |
| sex | breasts, and a chest that is 3 % lower |
| view | the beam; AP is taken of a supine patient: less breath, a larger heart, a wider roll, other devices |
| site | distance, field, scatter, tone curve, grain and collimation |
| a finding | nothing but itself: what it displaces, the opacity that it is, "No Finding" (`descriptions.changes`) |
| its side or severity | itself alone: the other side, or the larger lesion, has a place of its own |

The film is processed as a whole, and equalised: around a change its greys move a little, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chexgen_lib.descriptions.changes import changed
from chexgen_lib.phantom.render import Radiograph, render, render_many

VISIBLE = 5 / 255  # a difference of grey from which a pixel counts as changed


@dataclass(frozen=True)
class Counterfactual:
    """A film and the same film with something changed.

    Attributes:
        record, change: the film's record, and what was asked.
        target: the changed record, with what follows from the change.
        before, after: both renderings.
    """

    record: dict[str, Any]
    change: dict[str, Any]
    target: dict[str, Any]
    before: Radiograph
    after: Radiograph

    @property
    def region(self) -> np.ndarray:
        """Where the films differ by more than `VISIBLE`, bool [S, S]."""
        return np.abs(self.after.image - self.before.image) > VISIBLE


def counterfactual(record: Mapping[str, Any], change: Mapping[str, Any], size: int = 128) -> Counterfactual:
    """Render a record as it is, and with `change`; both as `descriptions.changes.changed` and `render` take them.

    Raises:
        ChangeError: for a change that the record cannot be given.
        PhantomError: for a record that cannot be rendered.
    """
    target = changed(record, change)
    return Counterfactual(dict(record), dict(change), target, render(dict(record), size), render(target, size))


def counterfactuals(
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], size: int = 128, workers: int = 2
) -> Iterator[Counterfactual]:
    """`counterfactual` of each record and change, in their order, rendered in `workers` processes."""
    pairs = [(dict(record), dict(change)) for record, change in pairs]
    targets = [changed(record, change) for record, change in pairs]
    both = [one for (record, _), target in zip(pairs, targets, strict=True) for one in (record, target)]
    films = render_many(both, size, workers)
    for (record, change), target in zip(pairs, targets, strict=True):
        yield Counterfactual(record, change, target, next(films), next(films))
