"""Where pictures are calculated: a GPU or the CPU, and what of its memory models may have."""

import gc
import os
from typing import Any, Final

import torch

from app.domain.profiles import Profile
from app.errors import SetupError
from app.log import get_logger

log = get_logger(__name__)

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ALLOCATIONS: Final = (
    "_alloc_failed",
    "cuda error: out of memory",
    "cuda driver error: out of memory",
    "nvml_success ==",
    "valid cudnn algorithm",
    "unable to find an engine",
    "defaultcpuallocator",
)
"""Memory that ran out where PyTorch has no class for it: in cuBLAS and its like, in CUDA itself, in asking a
driver that does not answer how much there is, in a search for a way to convolve, whose errors do not mention
memory, and on the CPU."""
_FAULTS: Final = (
    "cuda error",
    "cuda driver error",
    "cuda unknown error",
    "no cuda gpus",
    "cudagetdevicecount",
    "cudacachingallocator",
    "device-side assert",
    "triton error",
    *("cublas", "cudnn", "cufft", "curand", "cusolver", "cusparse", "nvrtc", "nccl error"),
)


class Device:
    """A GPU, or the CPU.

    Args:
        name: `cuda:0`, `cpu`; auto is the first GPU, else the CPU.
        reserve: bytes of a GPU that models leave to the pictures being drawn.
        budget: bytes for models; None is what the GPU has but for the reserve, half of the memory on a CPU.

    Raises:
        SetupError: there is no such device.
        RuntimeError: there is one, and it does not answer.
    """

    def __init__(self, name: str, *, reserve: int, budget: int | None) -> None:
        if name == "auto" and not torch.cuda.is_available():
            log.warning("no_gpu_here", used="cpu", remedy="DARKROOM_GPU_DEVICE=cuda, to have none draw here")
        if name == "auto":
            name = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.place = torch.device("cuda:0" if name == "cuda" else name)
        self.is_cuda = self.place.type == "cuda"
        if self.is_cuda and (self.place.index or 0) >= torch.cuda.device_count():
            raise SetupError(
                f"DARKROOM_GPU_DEVICE is {name}, but PyTorch sees {torch.cuda.device_count()} GPUs here."
            )
        self.main_budget = _main_memory() // 2
        """Bytes of main memory for models that wait beside a GPU."""
        self.budget = max(self._memory() - reserve, 0) if self.is_cuda else self.main_budget
        if budget is not None:
            self.budget = budget

    def enter(self) -> None:
        """Make it the current device of this thread, which is what libraries mean by plain `cuda`."""
        if self.is_cuda:
            torch.cuda.set_device(self.place)

    def dtype(self, profile: Profile) -> Any:
        """Give the number format of a profile, or half precision where the GPU lacks bfloat16."""
        lacks_it = self.is_cuda and not torch.cuda.is_bf16_supported(including_emulation=False)
        if profile.dtype == "bfloat16" and lacks_it:
            log.warning("no_bfloat16_here", profile=profile.name, used="float16")
            return torch.float16
        return _DTYPES[profile.dtype]

    def used(self) -> int | None:
        """Give the bytes of tensors on the GPU; None on a CPU, which does not count them."""
        return int(torch.cuda.memory_allocated(self.place)) if self.is_cuda else None

    def release(self) -> None:
        """Give back what nobody refers to any more; call it where no exception holds frames."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def _memory(self) -> int:
        return int(torch.cuda.mem_get_info(self.place)[1])


def _main_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at a time, or fewer models in memory, may help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in _ALLOCATIONS)


def is_device_fault(error: Exception) -> bool:
    """Whether an error may have broken the GPU's context: nothing drawn after it can be trusted."""
    if is_out_of_memory(error):
        return False
    text = str(error).lower()
    return isinstance(error, torch.AcceleratorError) or any(fault in text for fault in _FAULTS)
