"""What of a device's errors means what, and what becomes of one that cannot be used from the start."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch

from app.domain import catalog
from app.errors import DeviceBroken
from app.settings import Settings, load_without_servers
from workers.providers.diffusers.device import is_device_fault, is_out_of_memory
from workers.providers.opening import gpu_engine

ASSERTED = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some "
    "other API call, so the stacktrace below might be incorrect."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError(
            'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp"'
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
    ids=str,
)
def test_memory_that_ran_out_is_no_fault(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        torch.AcceleratorError(""),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(ASSERTED),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: the launch timed out and was terminated"),
        RuntimeError("CUDA driver error: an illegal memory access was encountered"),
        RuntimeError("CUDA driver error: unknown error"),
        RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized"),
        RuntimeError(
            '!handles_.at(i) INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":421'
        ),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("cuFFT error: CUFFT_EXEC_FAILED"),
        RuntimeError("cuRAND error: CURAND_STATUS_LAUNCH_FAILURE"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `cusolverDnCreate`"),
        RuntimeError("cusparse error: CUSPARSE_STATUS_EXECUTION_FAILED"),
        RuntimeError("nvrtc: error: failed to open libnvrtc-builtins.so"),
        RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error"),
    ],
    ids=str,
)
def test_a_fault_is_no_lack_of_memory(error: Exception) -> None:
    assert is_device_fault(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (77x32 and 64x32)"),
        RuntimeError(
            "Expected all tensors to be on the same device, but found at least two, cuda:0 and cpu!"
        ),
        ValueError("`height` and `width` have to be divisible by 8"),
        OSError("no file named model.safetensors"),
    ],
    ids=str,
)
def test_other_errors_are_neither(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert not is_device_fault(error)


def settings_with(folder: Path, device: str) -> Settings:
    # Not by a setting, which would be refused: a kind that PyTorch does not know fails as a dead GPU does.
    return load_without_servers(folder).model_copy(update={"gpu_device": device, "models_folder": folder})


@pytest.mark.parametrize(
    ("device", "why"), [("dead", "Expected one of"), ("cuda:99", "DARKROOM_GPU_DEVICE is cuda:99")]
)
def test_an_engine_that_cannot_run_here_ends_the_process_and_charges_nobody(
    tmp_path: Path, device: str, why: str
) -> None:
    told: list[str] = []
    with pytest.raises(DeviceBroken, match=f"the GPU engine cannot run here: {why}") as caught:
        gpu_engine(settings_with(tmp_path, device), catalog.load(), on_broken=told.append)

    assert told == [caught.value.message]
    assert not caught.value.charged
    assert caught.value.retryable
