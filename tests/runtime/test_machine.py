"""What is free on a machine, limits of containers and of the process included."""

import subprocess
import sys
from pathlib import Path

import pytest

from omniqa.runtime import machine

GIB = 2**30
SMI = """#!{python}
print("0, GPU-aaaa, NVIDIA A, 8000")
print("1, GPU-bbbb, NVIDIA B, 24000")
print("2, GPU-cccc, NVIDIA C, [N/A]")
"""


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Write a cgroup's files below a folder that stands for /sys/fs/cgroup."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")

    def write(own, folder, files):
        (tmp_path / "own").write_text(own)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)

    return write


def limited(limit, used, cached):
    return {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 5\ninactive_file {cached}\n"}


def test_a_containers_limit_is_what_is_available(cgroups):
    cgroups("0::/\n", ".", limited(f"{GIB}\n", f"{GIB // 2}\n", GIB // 4))
    assert machine.ram_available() == GIB - GIB // 2 + GIB // 4


def test_a_limit_further_up_counts_too(cgroups):
    cgroups("0::/user/job\n", "user/job", limited("max\n", "0\n", 0))
    cgroups("0::/user/job\n", "user", limited(f"{GIB}\n", "0\n", 0))
    assert machine.ram_available() == GIB


def test_the_older_cgroups_limit_counts_too(cgroups):
    files = {"memory.limit_in_bytes": f"{GIB}", "memory.usage_in_bytes": "0", "memory.stat": "total_inactive_file 0"}
    cgroups("4:memory:/job\n1:cpu:/job\n", "memory/job", files)
    assert machine.ram_available() == GIB


def test_used_up_limits_leave_nothing(cgroups):
    cgroups("0::/\n", ".", limited("10", "20", 0))
    assert machine.ram_available() == 0


def test_a_limit_of_the_processs_addresses_counts():
    code = "from omniqa.runtime.machine import ram_available; print(ram_available())"
    line = f'ulimit -v {4 * GIB // 1024}; "{sys.executable}" -c "{code}"'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 4 * GIB


def test_the_disk_of_a_folder_that_is_not_there_yet_is_known(tmp_path):
    assert machine.disk_free(tmp_path / "a" / "b") > 0


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A machine with GPUs, and without torch."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "torch_build", lambda: "cuda")
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize(
    ("device", "name", "free"),
    [("cuda:0,cuda:1", "NVIDIA A, NVIDIA B", 32000), ("cuda:1,cuda:0", "NVIDIA B, NVIDIA A", 32000),
     ("cuda:0,cuda:3", None, None)],
)  # fmt: skip
def test_several_gpus_have_as_much_free_as_all_of_them(smi, device, name, free):
    here = machine.read_machine(device)
    assert (here.gpu_name, here.gpu_free_bytes) == (name, None if free is None else free * 2**20)


@pytest.mark.parametrize(
    ("visible", "index", "name", "free"),
    [
        (None, 0, "NVIDIA A", 8000),
        (None, 1, "NVIDIA B", 24000),
        ("1", 0, "NVIDIA B", 24000),
        ("GPU-bbbb,0", 1, "NVIDIA A", 8000),
        ("", 0, None, None),
        ("-1", 0, None, None),
        (None, 2, None, None),
        (None, 3, None, None),
    ],
)
def test_gpus_are_read_without_torch_as_cuda_would_show_them(smi, monkeypatch, visible, index, name, free):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    here = machine.read_machine("cuda" if index == 0 else f"cuda:{index}")
    assert (here.gpu_name, here.gpu_free_bytes) == (name, None if free is None else free * 2**20)


@pytest.mark.parametrize("text", ["echo", "exit 9", "echo nonsense"])
def test_a_driver_that_does_not_answer_has_no_gpu(tmp_path, monkeypatch, text):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{Path('/bin/sh')}\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._gpu_by_nvidia_smi(0) == (None, None)
