"""Runs what a GPU would run on a second device that this process makes up, and prints what went wrong, in JSON.

A tensor there says that it is on the device "second"; its numbers are on the CPU. As on a GPU, an operation refuses
tensors of both, unless that on the CPU is a single number or an index. In a process of its own: a backend of torch
cannot be taken away again.
"""

import json
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

torch.inference_mode = torch.no_grad  # tensors of inference cannot be wrapped
_setup_privateuseone_for_python_backend("second")
SECOND = torch.device("second", 0)

from chexgen_lib.diffusion.schedulers import flow_euler_scheduler, flow_heun_scheduler, released_scheduler  # noqa: E402
from chexgen_lib.models.autoencoder import load_autoencoder, new_autoencoder  # noqa: E402
from chexgen_lib.models.baseline import BaselineUNet  # noqa: E402
from chexgen_lib.models.control import ControlledTransformer  # noqa: E402
from chexgen_lib.models.text import load_text_encoder  # noqa: E402
from chexgen_lib.models.transformer import ChexGenTransformer  # noqa: E402
from chexgen_lib.sampling.baseline import BaselinePipeline  # noqa: E402
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble  # noqa: E402
from chexgen_lib.training.autoencoder import reconstruct  # noqa: E402
from chexgen_lib.training.latent_cache import LatentCache  # noqa: E402
from chexgen_lib.training.trainer import noise_error  # noqa: E402

MOVES = ("aten::_to_copy", "aten::copy_")
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")


class There(torch.Tensor):
    """A tensor on the second device."""

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        layout = dict(strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=SECOND)
        return torch.Tensor._make_wrapper_subclass(cls, here.size(), **layout)

    def __init__(self, here: torch.Tensor):
        self.here = here

    def tolist(self) -> list:
        return self.here.tolist()

    def new_tensor(self, values, **settings) -> "There":
        return There(self.here.new_tensor(values, **settings))

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """Within it, tensors can be made on and moved to the second device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args: tuple, kwargs: dict):
    """An operation on tensors of one device; its results are there, or where it was told to put them."""
    name = function._schema.name
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    left = [x for x in tensors if not isinstance(x, There) and x.dim()]
    if there and left and name not in MOVES and not (name in INDEXED and isinstance(args[0], There)):
        raise RuntimeError(f"{name}: a tensor {tuple(left[0].shape)} was left on the CPU")
    onto = kwargs.get("device")
    there_after = bool(there) if onto is None else torch.device(onto).type == SECOND.type
    if name == "aten::copy_":
        there_after = isinstance(args[0], There)
    if onto is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    whose = {id(x.here): x for x in there}
    args, kwargs = tree_map(lambda x: x.here if isinstance(x, There) else x, (args, kwargs))
    results = function(*args, **kwargs)

    def placed(x):
        if not isinstance(x, torch.Tensor) or not there_after:
            return x
        return whose.get(id(x)) if id(x) in whose else There(x)

    return tree_map(placed, results)


def model(**changes) -> ChexGenTransformer:
    torch.manual_seed(0)
    transformer = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384, **changes).eval()
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer.requires_grad_(False)


def pipeline(transformer: torch.nn.Module, scheduler=None) -> ChexGenPipeline:
    pipe = assemble(transformer, "shipped", "minilm")
    if scheduler is not None:
        pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe: ChexGenPipeline, prompt: str | None = "Cardiomegaly.", **settings) -> np.ndarray:
    return pipe(
        prompt, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np", **settings
    ).images


def on(transformer: torch.nn.Module, device: torch.device, scheduler=None, **settings) -> np.ndarray:
    return images(pipeline(transformer.to(device), scheduler), **settings)


def trained_shipped(device: torch.device) -> np.ndarray:
    autoencoder = new_autoencoder((8, 8, 8)).to(device)
    pictures = np.random.default_rng(0).integers(0, 255, (4, 32, 32), np.uint8)
    return reconstruct(autoencoder.eval(), pictures)[0]


def cached(device: torch.device) -> np.ndarray:
    pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32), np.uint8)
    conditions = np.random.default_rng(1).integers(0, 255, (3, 32, 32, 3), np.uint8)
    frozen = load_autoencoder("shipped", device), load_text_encoder("minilm", device=device)
    cache = LatentCache.of(pictures, ["Effusion.", "Clear.", "No effusion."], *frozen, conditions)
    assert all(x.device.type == "cpu" for x in (cache.mean, cache.std, cache.states, cache.offsets, cache.condition))
    return np.concatenate([cache.mean.float().flatten(), cache.states.float().flatten(), cache.condition.flatten()])


def error(device: torch.device) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    latents, texts = torch.randn(4, 4, 4, 4, generator=generator), torch.randn(8, 384, generator=generator)
    pairs = LatentCache(latents.half(), torch.zeros_like(latents).half(), texts.half(), torch.arange(0, 9, 2))
    return np.array(noise_error(model().to(device), pairs))


def baseline(device: torch.device) -> np.ndarray:
    torch.manual_seed(0)
    unet = BaselineUNet.of_size("ci", (4, 4, 4), 384).eval().requires_grad_(False)
    return images(BaselinePipeline(**pipeline(unet.to(device)).components))


def moved(device: torch.device) -> np.ndarray:
    """A pipeline that is loaded from a folder, and then moved."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline(model()).save_pretrained(folder)
        pipe = ChexGenPipeline.from_pretrained(folder).to(device)
    pipe.set_progress_bar_config(disable=True)
    return images(pipe, num_images_per_prompt=2)


def adapted(device: torch.device) -> np.ndarray:
    adapter = ControlledTransformer.on(model(), 1).eval().requires_grad_(False)
    torch.nn.init.normal_(adapter.controlnet[0].after_proj.weight, std=0.3)
    return on(adapter, device, mask={"lungs": np.tri(32) > 0}, boxes=[])


PERSON = {"age": 50, "sex": "F", "Effusion": 1}
CASES: dict[str, Callable[[torch.device], np.ndarray]] = {
    "text": lambda device: on(model(), device),
    "text without guidance": lambda device: on(model(), device, guidance_scale=1.0),
    "text with metadata before it": lambda device: on(model(), device, metadata={"sex": "F"}),
    "a learned variance": lambda device: on(model(out_channels=8), device, released_scheduler()),
    "Euler": lambda device: on(model(), device, EulerDiscreteScheduler()),
    "DPM-Solver++": lambda device: on(model(), device, DPMSolverMultistepScheduler()),
    "a flow": lambda device: on(model(objective="rectified_flow"), device, flow_euler_scheduler(2.0)),
    "a flow with Heun": lambda device: on(model(objective="rectified_flow"), device, flow_heun_scheduler(2.0)),
    "encoded metadata": lambda device: on(
        model(metadata_sources=["nih"]), device, metadata=PERSON, metadata_guidance={"age": 2.0}
    ),
    "metadata alone": lambda device: on(model(metadata_sources=["nih"]), device, prompt=None, metadata=PERSON),
    "a condition": adapted,
    "a loaded pipeline": moved,
    "the baseline": baseline,
    "a latent cache": cached,
    "the noise error": error,
    "reconstructions": trained_shipped,
}


def main() -> None:
    make_tensor = torch.tensor
    expected = {name: case(torch.device("cpu")) for name, case in CASES.items()}
    outcome = {}

    # Inside torch.tensor, no mode sees the move to the device.
    def tensor(values, device=None, **settings):
        return make_tensor(values, **settings) if device is None else make_tensor(values, **settings).to(device)

    torch.tensor = tensor
    with SecondDevice():
        for name, case in CASES.items():
            try:
                difference = float(np.abs(case(SECOND) - expected[name]).max())
                outcome[name] = "" if difference < 1e-3 else f"differs by {difference}"
            except Exception as failure:  # noqa: BLE001  # whatever it is, the test shows it
                outcome[name] = f"{type(failure).__name__}: {failure}"
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
