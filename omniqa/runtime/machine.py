"""What this machine has free for a model: memory, a GPU, the disk of the hub's cache. Free of torch where it can be."""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from omniqa.runtime.device import devices_of

_NVIDIA_SMI_SECONDS = 10.0
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """What is free, in bytes.

    Attributes:
        ram_available_bytes: memory that a process may still take, limits of its container included.
        disk_free_bytes: on the file system of the hub's cache.
        gpu_free_bytes: on the GPUs that torch would use, one as a rule; None if one of them is not there.
        gpu_name: these GPUs' names.
    """

    ram_available_bytes: int
    disk_free_bytes: int
    gpu_free_bytes: int | None = None
    gpu_name: str | None = None

    def free_on(self, device: str) -> int | None:
        """What is free where `device` (cpu, cuda, cuda:N or a list) has its memory; None if it may not be there."""
        return self.ram_available_bytes if device == "cpu" else self.gpu_free_bytes


def read_machine(device: str = "auto") -> Machine:
    """Measure what is free now.

    Args:
        device: auto, cpu, cuda, cuda:N or a list of these; which of several GPUs are looked at.
    """
    gpus = [] if device == "cpu" else [_gpu(int(one.partition(":")[2] or 0)) for one in devices_of(device)]
    free = [size for _, size in gpus if size is not None]
    names = [name for name, _ in gpus if name is not None]
    there = bool(gpus) and len(free) == len(gpus)
    return Machine(
        ram_available(), disk_free(hub_cache()), sum(free) if there else None, ", ".join(names) if there else None
    )


def hub_cache() -> Path:
    """The folder that the hub's client keeps checkpoints in."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def disk_free(folder: Path) -> int:
    """Free bytes of the file system that `folder`, which may not be there yet, lies on."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path.cwd())
    return shutil.disk_usage(there).free


def ram_available() -> int:
    """Bytes that this process may still take without swapping, by the system, its cgroup and its own limit."""
    import psutil

    limits = [psutil.virtual_memory().available, *_cgroup_room(), *_address_room(psutil.Process().memory_info().vms)]
    return max(0, min(limits))


def _address_room(used: int) -> list[int]:
    """What `ulimit -v` leaves of the process's addresses."""
    if sys.platform == "win32":
        return []
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if limit == resource.RLIM_INFINITY else [limit - used]


def _cgroup_room() -> list[int]:
    """What the process's cgroup and those above it leave; a container is one. Empty if nothing limits it."""
    try:
        own = [line.split(":", 2) for line in _OWN_CGROUP.read_text().splitlines()]
    except OSError:
        return []
    rooms = []
    for _, controllers, path in own:
        if controllers == "":  # version 2
            top, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = _CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.lstrip("/")
        for place in (folder, *folder.parents):
            rooms += _room_of(place, *names)
            if place == top:
                break
    return rooms


def _room_of(folder: Path, limit: str, usage: str, cached: str) -> list[int]:
    """What one cgroup leaves: its limit without what is in use, files that are merely cached not counted."""
    try:
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such folder in this container, or "max"
        return []
    return [most - used + int(stat.get(cached, 0))]


def _gpu(index: int) -> tuple[str | None, int | None]:
    """Name and free bytes of the GPU that torch calls cuda:`index`."""
    build = torch_build()
    if build is None:
        return None, None
    # torch knows best, but takes seconds to import. AMD's GPUs have no program that is always there.
    if "torch" in sys.modules or build == "hip":
        return _gpu_by_torch(index)
    return _gpu_by_nvidia_smi(index)


def torch_build() -> str | None:
    """Which GPUs the installed torch was built for: cuda or hip; None for none, or without torch. Doesn't import it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    libraries = Path(spec.origin).parent / "lib"
    return next((kind for kind in ("cuda", "hip") if any(libraries.glob(f"*torch_{kind}.*"))), None)


def _gpu_by_torch(index: int) -> tuple[str | None, int | None]:
    import torch

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None, None
    return torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[0]


def _gpu_by_nvidia_smi(index: int) -> tuple[str | None, int | None]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    query = [program, "--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer has no GPU to offer
        return None, None
    found = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines()) if len(row) == 4]
    shown = _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if index >= len(shown) or not shown[index][3].isdecimal():
        return None, None
    return shown[index][2], int(shown[index][3]) * 2**20


def _visible(found: list[list[str]], chosen: str | None) -> list[list[str]]:
    """The GPUs, each (index, uuid, name, free MiB), that CUDA_VISIBLE_DEVICES lets a program see, in its order."""
    if chosen is None:
        return found
    shown = []
    for name in (part.strip() for part in chosen.split(",")):
        match = next((row for row in found if row[0] == name or (name and row[1].startswith(name))), None)
        if match is None:  # CUDA stops at the first one that is not there
            break
        shown.append(match)
    return shown
