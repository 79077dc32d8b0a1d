"""The launch configurations are what accelerate reads, and the launcher turns into what the trainer meets."""

import argparse

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.dataclasses import get_module_class_from_name
from accelerate.utils.launch import prepare_multi_gpu_env

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.transformer import ChexGenTransformer


@pytest.mark.parametrize("name, kind, processes", [("one_gpu", "NO", 1), ("ddp", "MULTI_GPU", 8), ("fsdp", "FSDP", 8)])
def test_accelerate_reads_the_configuration(root, name, kind, processes):
    path = root / f"conf/accelerate/{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.distributed_type.value == kind and config.num_processes == processes and not config.use_cpu
    assert config.mixed_precision == "no"
    assert f"--config_file conf/accelerate/{name}.yaml -m chexgen_lib.cli.main train" in path.read_text()


def test_the_launcher_turns_sharding_on(root, monkeypatch):
    path = root / "conf/accelerate/fsdp.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    assert isinstance(arguments, argparse.Namespace) and arguments.use_fsdp
    environment = prepare_multi_gpu_env(arguments)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for name, value in environment.items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True and plugin.mixed_precision_policy is None
    assert not (plugin.activation_checkpointing or plugin.cpu_ram_efficient_loading)
    transformer = ChexGenTransformer.of_size("ci", sample_size=4)
    plugin.set_auto_wrap_policy(transformer)
    wrapped = [type(m).__name__ for m in transformer.modules() if plugin.auto_wrap_policy(m, False, 0)]
    assert sorted(set(wrapped)) == ["Block", "TextProjection"] and len(wrapped) == 4


def test_what_is_gathered_at_a_time_exists():
    with torch.device("meta"):
        transformer = ChexGenTransformer.of_size("ci")
        models = [
            transformer,
            ControlledTransformer.on(transformer, 1),
            BaselineUNet.of_size("paper", (4, 64, 64), 768),
        ]
    for model in models:
        for name in model._no_split_modules:
            assert get_module_class_from_name(model, name) is not None, (type(model).__name__, name)
