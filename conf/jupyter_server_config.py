"""For `make lab`: kernels start in the root of the repository, where the notebooks' paths begin; DVC does so, too."""

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from chexgen_lib.processes import spin_briefly

spin_briefly()  # in the kernels, which inherit it


class AtRoot(AsyncMappingKernelManager):
    def cwd_for_path(self, path: str, **_) -> str:
        return self.root_dir


c.ServerApp.kernel_manager_class = AtRoot  # noqa: F821, Jupyter puts `c` here
