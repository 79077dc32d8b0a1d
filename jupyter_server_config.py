"""Read by `jupyter lab` when it is started in this folder: the notebooks' paths begin here, as when DVC runs them."""

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


class AtRoot(AsyncMappingKernelManager):
    def cwd_for_path(self, path: str, **_) -> str:
        return self.root_dir


c.ServerApp.kernel_manager_class = AtRoot  # noqa: F821, Jupyter puts `c` here
