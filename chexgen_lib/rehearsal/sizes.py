"""A profile made small: its sizes become those of the profile `ci` where these are smaller, and nothing else changes.

Sources, splits, label sets, objectives, models of others, arms, samplers and guidance stay the profile's.
"""

from collections.abc import Mapping
from typing import Any

SMALL = "ci"
# Settings that are sizes, by their names in every section, or in full.
IMAGES = (
    *("stage1_train", "stage1_val", "stage2_train", "stage2_val", "stage2_test"),
    *("external_train", "external_val", "external_test", "train_images", "test_images", "val_images", "probe_images"),
    *("records", "copies", "task_copies", "baseline_copies", "severity_records", "mask_records", "box_records"),
    *("annotated_copies", "pairs_per_kind", "requests_per_kind", "samples_per_request", "prompts", "pairs"),
    *("images_per_prompt", "comparison_images", "stress_patients", "attention_cases", "planted_faults", "images"),
    *("supervised_pretraining.shares", "shots", "draws", "oracles", "fractions", "seeds", "n_bootstrap"),
    *("rows_per_source", "min_patients", "least_cases"),
    # As many attributes as so few held-out images can tell apart: an interval needs 5 of each pole.
    *("rectified_flow.attributes", "walked", "balanced_findings"),
)
RESOLUTIONS = ("low_resolution", "high_resolution", "resolution")
NETWORKS = (
    *("model", "other_models", "size", "classifier_size", "segmenter_size", "copied_blocks", "token_width"),
    *("channels", "measured"),
)
STEPS = (
    *("steps", "epochs", "warmup_steps", "fine_tuning_steps", "shot_steps", "flow_steps", "classifier_steps"),
    *(
        "segmenter_steps",
        "fine_tuning_epochs",
        "checks",
        "fine_tuning_checks",
        "checkpoint_every",
        "preview_steps",
        "num_inference_steps",
    ),
    *("sampling_steps", "few_steps", "many_steps", "control_steps"),
)
MACHINE = ("batch_size", "sampling_batch", "fine_tuning_batch", "batch", "gradient_accumulation", "workers", "launch")
# Where a profile needs more than `ci`: for eight sources; for two processes, in place of the profile's GPUs.
MORE = {"cohort.stage1_train": 144, "cohort.stage1_val": 64}
MORE |= dict.fromkeys((f"{stage}.training.gradient_accumulation" for stage in ("pretraining", "alignment")), 2)
MORE |= {"launch": "python -m torch.distributed.run --standalone --nproc_per_node 2"}
OPEN = ("rows_per_source",)  # where null stands for more rows than any stand-in has
SIZES = frozenset((*IMAGES, *RESOLUTIONS, *NETWORKS, *STEPS, *MACHINE))


def reduced(profile: Mapping[str, Any], small: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The profile's values, with the sizes of `small` in place of its own; of two numbers the smaller.

    Args:
        profile, small: composed profiles (`workflow.dag.plain`).
        above: the section, with a dot behind.
    """
    found = dict(profile)
    for key, value in profile.items():
        if key not in small:
            continue
        name = f"{above}{key}"
        if key in SIZES or name in SIZES:
            found[key] = _size(value, MORE.get(name, small[key]), key)
        elif isinstance(value, Mapping) and isinstance(small[key], Mapping):
            found[key] = reduced(value, small[key], f"{name}.")
    return found


def _size(value: Any, small: Any, key: str) -> Any:
    """The smaller of two sizes; what a profile leaves open (the steps, where it counts epochs) stays open."""
    if value is None and key not in OPEN:
        return None
    if small is None:
        return min(value, 1) if isinstance(value, int | float) else value
    return min(value, small) if isinstance(value, int | float) and isinstance(small, int | float) else small
