#!/usr/bin/env bash
# fairlearn's bootstrap takes a resample that cannot measure a group for one without a gap.
#
# fairlearn 0.15.0 (scikit-learn 1.9.1, pandas 3.1.1); seen 2026-11-29.
# Every member of group b is classified wrongly and everybody else rightly, so the gap of accuracy is 1 wherever
# it can be measured. In resamples that hold nobody of b, MetricFrame takes the difference over the groups that
# are left, one, and counts 0: the 95 % interval of a certain gap starts at 0 for up to three persons. The same
# happens to a gap of AUROC when none of the group's few positives is drawn, however large the group is. The
# interval of the group itself leaves such draws out.
# Guessed before: such resamples are left out, [1, 1].
# Seen:
#   persons of b: 1  gap 1.0, 95 % interval [0.0, 1.0]; accuracy of b [0.0, 0.0]
#   persons of b: 2  gap 1.0, 95 % interval [0.0, 1.0]; accuracy of b [0.0, 0.0]
#   persons of b: 3  gap 1.0, 95 % interval [0.0, 1.0]; accuracy of b [0.0, 0.0]
#   AUROC, b has 50 persons, 2 of them positive: gap 1.0, 95 % interval [0.0, 1.0]; AUROC of b [0.0, 0.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    fairlearn==0.15.0 scikit-learn==1.9.1 pandas==3.1.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score, roc_auc_score


def intervals(metric, truth, prediction, group):
    frame = MetricFrame(
        metrics=metric,
        y_true=truth,
        y_pred=prediction,
        sensitive_features=group,
        n_boot=1000,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    gap, own = ([float(end) for end in ends] for ends in (frame.difference_ci(), [e["b"] for e in frame.by_group_ci]))
    return float(frame.difference()), gap, own


ok = []
for persons in (1, 2, 3):
    group = np.array(["a"] * (100 - persons) + ["b"] * persons)
    gap, ends, own = intervals(accuracy_score, np.zeros(100, int), (group == "b").astype(int), group)
    print(f"persons of b: {persons}  gap {gap}, 95 % interval {ends}; accuracy of b {own}")
    ok.append((gap, ends, own) == (1.0, [0.0, 1.0], [0.0, 0.0]))

truth = np.r_[np.tile([0, 1], 200), np.zeros(48, int), [1, 1]]
score = np.r_[np.tile([0.0, 1.0], 200), np.linspace(0.5, 1, 48), [0.0, 0.1]]
gap, ends, own = intervals(roc_auc_score, truth, score, ["a"] * 400 + ["b"] * 50)
print(f"AUROC, b has 50 persons, 2 of them positive: gap {gap}, 95 % interval {ends}; AUROC of b {own}")
ok.append((gap, ends, own) == (1.0, [0.0, 1.0], [0.0, 0.0]))
sys.exit(not all(ok))
PYTHON
