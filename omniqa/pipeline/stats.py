"""How long the stages take and how much memory they peak at."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

OVERLAPPED = "overlapped"  # beside the stages: seconds in which one ran beside another
PROC_STATUS = Path("/proc/self/status")


class StageClock:
    """Wall seconds by stage. On CUDA a stage ends when its kernels have."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def elapsed(seconds: dict[str, float]) -> float:
    """Wall seconds of stages whose own seconds these are: their sum without what ran beside another stage."""
    return sum(seconds.values()) - 2 * seconds.get(OVERLAPPED, 0.0)


def reset_device_peak(devices: Iterable[torch.device]) -> None:
    """Start measuring the devices' peaks anew."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(devices: Iterable[torch.device]) -> int | None:
    """Most bytes allocated on each device since the last reset, summed; None on the CPU."""
    peaks = [torch.cuda.max_memory_allocated(device) for device in devices if device.type == "cuda"]
    return sum(peaks) if peaks else None


def peak_rss_bytes() -> int:
    """Most bytes that this process has had resident at once, since it began. Mapped weights that were read count."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if PROC_STATUS.exists():  # unlike getrusage, this leaves out the process that started this one
        line = next(line for line in PROC_STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
