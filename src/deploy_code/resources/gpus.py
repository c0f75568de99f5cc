"""The GPUs of this machine, by NVML (``pip install deploy-code[gpu]``); no driver, no GPU.

NVML counts in the order of the PCI bus. CUDA does so only when told to, hence ``CUDA_DEVICE_ORDER`` beside
``CUDA_VISIBLE_DEVICES`` in the env of an instance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device. ``used_percent``: how busy it was in the last moment."""

    index: int
    name: str = ""
    memory_mb: int = 0
    used_mb: int = 0
    used_percent: int = 0


def gpus() -> tuple[Gpu, ...]:
    """All devices, by index; none where NVML or its driver is missing."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver on this machine, or none that answers
        return ()
    try:
        return tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml, index: int) -> Gpu:  # type: ignore[no-untyped-def]  # a module without types
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except nvml.NVMLError:  # some boards do not tell
        busy = 0
    name = nvml.nvmlDeviceGetName(handle)
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        memory_mb=memory.total >> 20,
        used_mb=memory.used >> 20,
        used_percent=busy,
    )


def is_installed() -> bool:
    """Can this Python ask for GPUs at all?"""
    from importlib.util import find_spec

    return find_spec("pynvml") is not None


def visible(indices: Iterable[int]) -> dict[str, str]:
    """The env that shows a program exactly these devices, and none when there are none."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices))}
