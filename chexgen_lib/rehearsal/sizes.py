"""A profile made small: its sizes become those of the profile `ci` where these are smaller, and nothing else changes.

Sources, splits, label sets, objectives, models of others, arms, samplers and guidance stay the profile's.
"""

from collections.abc import Mapping
from typing import Any

import torch

SMALL = "ci"
# Settings that are sizes, by their names in every section, or in full. Attributes are among them: so few held-out
# images cannot tell all apart, since an interval needs 5 of each pole.
SIZES = frozenset(
    """
    stage1_train stage1_val stage2_train stage2_val stage2_test external_train external_val external_test train_images
    test_images val_images probe_images records copies task_copies rival_copies severity_records mask_records
    box_records annotated_copies pairs_per_kind requests_per_kind samples_per_request prompts images_per_prompt pairs
    probe_pairs checked comparison_images stress_patients attention_cases planted_faults images rows_per_source
    supervised_pretraining.shares shots draws oracles fractions seeds n_bootstrap min_patients least_cases
    rectified_flow.attributes walked balanced_findings calibration_pairs

    low_resolution high_resolution resolution

    model other_models size classifier_size segmenter_size copied_blocks token_width channels measured

    steps epochs warmup_steps fine_tuning_steps fine_tuning_epochs shot_steps flow_steps classifier_steps
    segmenter_steps checks fine_tuning_checks checkpoint_every preview_steps num_inference_steps sampling_steps
    few_steps many_steps control_steps compared_steps

    batch_size sampling_batch fine_tuning_batch batch gradient_accumulation workers launch
    """.split()
)


def launcher() -> str:
    """Two processes in place of the profile's GPUs; one on a machine with a single GPU, which they could not share."""
    processes = 1 if torch.cuda.device_count() == 1 else 2
    return f"python -m torch.distributed.run --standalone --nproc_per_node {processes}"


# Where a profile needs more than `ci`: for eight sources, and for two processes.
MORE = {"cohort.stage1_train": 144, "cohort.stage1_val": 64}
LAUNCHED = ("pretraining", "alignment", "baseline", "annotation_to_image")
MORE |= dict.fromkeys((f"{stage}.training.gradient_accumulation" for stage in LAUNCHED), 2)
MORE |= {"launch": launcher()}
OPEN = ("rows_per_source",)  # where null stands for more rows than any stand-in has


def reduced(profile: Mapping[str, Any], small: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The profile's values, with the sizes of `small` in place of its own; of two numbers the smaller.

    Args:
        profile, small: composed profiles (`workflow.dag.plain`).
        above: the section, with a dot behind.
    """
    found = dict(profile)
    for key, value in profile.items():
        name = f"{above}{key}"
        if key in SIZES or name in SIZES:
            found[key] = _size(value, MORE.get(name, small.get(key)), key)
        elif isinstance(value, Mapping) and isinstance(small.get(key), Mapping):
            found[key] = reduced(value, small[key], f"{name}.")
    return found


def _size(value: Any, small: Any, key: str) -> Any:
    """The smaller of two sizes, one epoch; what a profile leaves open (the steps, beside epochs) stays open."""
    if value is None and key not in OPEN:
        return None
    if key == "launch" and value.startswith("srun "):  # the job of Slurm says itself how many processes there are
        return value
    if small is None:
        return 1 if key.endswith("epochs") else value
    return min(value, small) if isinstance(value, int | float) and isinstance(small, int | float) else small
