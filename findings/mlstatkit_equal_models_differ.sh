#!/usr/bin/env bash
# MLstatkit's DeLong test finds that a model differs from itself: p = 0.
#
# MLstatkit 0.1.91 (scikit-learn 1.9.1, scipy 1.17.1); seen 2026-11-29.
# Where the variance of the difference of two AUROCs is zero, Delong_test goes over to a bootstrap whose p is twice the
# smaller of the shares of differences "at most 0" and "above 0": none is above where all are 0. It happens whenever two
# models order the cases alike: the same scores, their logits, two networks that both separate a finding perfectly. The
# table then shows "p < 0.001" beside z = 0. Other pairs agree with the formula.
# Guessed before: p = 1, or NaN as the formula has it.
# Seen:
#   the same scores           z 0.0  p 0.0
#   scores and their logits   z 0.0  p 0.0
#   two perfect models        z 0.0  p 0.0
#   one pair exchanged        z -0.7  p 0.5
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    mlstatkit==0.1.91 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(0)
truth = np.repeat([1, 0], [20, 80])
scores = 1 / (1 + np.exp(-(truth + rng.normal(size=100))))
apart = truth + 0.1 * rng.random((2, 100))
order = np.argsort(scores)
exchanged = scores.copy()
place = next(k for k in range(50, 99) if truth[order[k]] != truth[order[k + 1]])
exchanged[order[[place, place + 1]]] = scores[order[[place + 1, place]]]
PAIRS = {
    "the same scores": (scores, scores.copy()),
    "scores and their logits": (scores, np.log(scores / (1 - scores))),
    "two perfect models": tuple(apart),
    "one pair exchanged": (scores, exchanged),
}
seen = {}
for name, (one, other) in PAIRS.items():
    z, p = Delong_test(truth, one, other, return_ci=False, return_auc=False, random_state=0)[:2]
    seen[name] = round(float(z), 1), round(float(p), 1)
    print(f"{name:25} z {seen[name][0]}  p {seen[name][1]}")
*degenerate, last = seen.values()
sys.exit(any(pair != (0.0, 0.0) for pair in degenerate) or not 0.1 < last[1] < 0.9)
PYTHON
