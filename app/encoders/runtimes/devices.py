"""What this machine has for models: torch, a GPU, bfloat16 instructions. Nothing here imports torch in vain."""

from __future__ import annotations

import ctypes.util
import importlib.util
import sys
from functools import cache
from pathlib import Path

from hyblink.app.core.settings import EncodeSettings

_BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


def torch_installed() -> bool:
    """Whether torch and what loads models with it are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "sentence_transformers"))


def _gpu_possible() -> bool:
    """Whether a GPU driver shows itself. Importing torch takes seconds, so it is not asked where there can be none."""
    if sys.platform == "win32":
        return ctypes.util.find_library("nvcuda") is not None
    return any(Path(path).exists() for path in _GPU_FILES)


@cache
def _gpu_found() -> bool:
    if not (torch_installed() and _gpu_possible()):
        return False
    import torch

    return bool(torch.cuda.is_available())


def device_of(settings: EncodeSettings) -> str:
    """The device for models: as set, or with `auto` a GPU if there is one and torch is installed."""
    if settings.device != "auto":
        return settings.device
    return "cuda" if _gpu_found() else "cpu"


def on_gpu(settings: EncodeSettings) -> bool:
    """Whether models run on a GPU."""
    return not device_of(settings).startswith("cpu")


@cache
def cpu_has_bf16() -> bool:
    """Whether this CPU has bfloat16 instructions. Without them bfloat16 is slower than float32."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return bool(_BF16_CPU_FLAGS & set(flags.split()))
