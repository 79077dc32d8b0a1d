"""Stand-ins of all datasets below one data root."""

from pathlib import Path

from chexgen_lib.rehearsal import annotated, stage1
from chexgen_lib.storage import replacing

STAGE1 = ("nih", "chexpert", "padchest", "mimic_cxr", "bimcv_covid", "vindr_pcxr", "brax", "ranczr_clip")
ANNOTATED = ("siim_acr_ptx", "vindr_ribcxr", "object_cxr", "chestx_det", "ralo")
DOWNSTREAM = ("vindr_cxr", "candid_ptx", "chest_dr")
MAKERS = {source: getattr(stage1, source) for source in STAGE1}
MAKERS |= {source: getattr(annotated, source) for source in (*ANNOTATED, *DOWNSTREAM)}


def lay_out(root: Path) -> None:
    """Fill `root` with a folder for each dataset of Extended Data Tables 1 to 3; a folder that is there stays.

    Open-i is no part: its reports come with a package, and the profiles `gpu` and `paper` read no image of it.
    """
    for source, make in MAKERS.items():
        if not (root / source).is_dir():
            with replacing(root / source) as folder:
                make(folder)
