"""The launch configurations are what accelerate reads."""

import pytest
from accelerate.commands.config.config_args import load_config_from_file


@pytest.mark.parametrize("name, kind, processes", [("one_gpu", "NO", 1), ("ddp", "MULTI_GPU", 8)])
def test_accelerate_reads_the_configuration(root, name, kind, processes):
    config = load_config_from_file(str(root / f"conf/accelerate/{name}.yaml"))
    assert config.distributed_type.value == kind and config.num_processes == processes and not config.use_cpu
    assert config.mixed_precision == "no"
