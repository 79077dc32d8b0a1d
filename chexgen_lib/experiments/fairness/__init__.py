"""Fairness: F1 by group of patients, its agreement between a real and a synthetic test cohort, and between arms.

The paper computes the weighted F1 over the 14 findings for each sex, race and age group and for their combinations,
on the real test cohort and on its matched synthetic copy; correlates the two over the groups; and trains again with
synthetic images of the under-represented groups (Methods, "Model bias detection and mitigation experiments";
Figure 5). Here

- patients, not images, are resampled, once for all groups, cohorts and training arms, so that differences are paired;
- groups with fewer than a stated number of patients are listed with their n and have no estimate;
- each disparity is shown beside its value for equal groups: the best of several noisy groups always beats the worst;
- decision thresholds come from validation data.

F1 rises with the share of positive labels. A gap therefore shows that groups fare differently, not why: prevalence is
listed beside each F1, and the equalised-odds difference depends on it less. For the same reason two cohorts with the
same labels agree somewhat even if the classifier is uninformative: compare `agreement` with that of the synthetic
scores permuted across patients (`quality.factuality.derangement`).

`pools.groups` and `scores.thresholds` come first, then `scores.evaluate` for a classifier and a test cohort, then the
tables: `scores.group_table`, `agreement.agreement`, `disparity.disparity`, `mitigation.compare`. The training arms are
made in `pools.balancing`.
"""

PEARSON, SPEARMAN, SHIFT = "Pearson r", "Spearman rho", "mean difference, synthetic - real"
WORST, GAP = "worst-group F1", "best-worst gap of F1"
ODDS, PARITY = "equalised-odds difference", "demographic-parity difference"
AUROC, MACRO, WEIGHTED = "macro AUROC", "macro F1", "weighted F1"
ALL_GROUPS = "all groups"
EQUAL = "equal groups"  # arm: what a disparity would be if groups were equal
TOO_FEW = "fewer than 2 groups with an estimate"
FEWER_THAN_3 = "fewer than 3 groups: 1 or -1 whatever the data"
