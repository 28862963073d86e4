"""Load and memory of NVIDIA GPUs, asked of the driver by NVML (nvidia-ml-py, where it is installed). Used by
`vitals`, in its thread.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple


class GpuUsage(NamedTuple):
    """None is not known."""

    percent: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


def usage(device: str, visible: str | None) -> GpuUsage:
    """What is used of "cuda:1", as a worker names it among the GPUs that CUDA_VISIBLE_DEVICES, `visible`,
    lets it see.
    Never raises; nothing is known of a CPU, or without a driver.
    """
    kind, _, number = device.partition(":")
    nvml = _nvml() if kind == "cuda" else None
    if nvml is None:
        return GpuUsage()
    try:
        handle = _handle(nvml, int(number or 0), visible)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except Exception:  # of the driver, or a device that is named otherwise (MIG)
        return GpuUsage()
    return GpuUsage(_percent(nvml, handle), int(memory.used), int(memory.total))


def _percent(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except Exception:  # a part of a GPU (MIG) has none
        return None


def _handle(nvml: Any, number: int, visible: str | None) -> Any:
    names = [name.strip() for name in (visible or "").split(",") if name.strip()]
    name = names[number] if names else str(number)
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)


@cache
def _nvml() -> Any:
    """The library, made ready; None without it or a driver."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
    except Exception:
        return None
    return pynvml
