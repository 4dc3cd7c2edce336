"""Out of memory is told from every other error, whoever raises it and in whatever words."""

import errno
import os

import av
import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from omniqa.errors import MediaError, OutOfMemoryError, UsageError
from omniqa.memory import is_out_of_memory, memory_errors

ROOM = {
    "Python": MemoryError(),
    "numpy": np._core._exceptions._ArrayMemoryError((10**12,), np.dtype(np.float32)),
    "FFmpeg": av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory"),
    "a thread of FFmpeg": av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    "the system": OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "torch on a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "torch on a CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate"
                                   " memory: you tried to allocate 4000000000000 bytes. Error code 12"),
    "torch on Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "torch mapping a file": RuntimeError("unable to mmap 26448392 bytes from file <a>: Cannot allocate memory (12)"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "the C++ library": RuntimeError("std::bad_alloc"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "a thread of Python": RuntimeError("can't start new thread"),
    "the loader": ImportError("libx.so: failed to map segment from shared object"),
    "Rust": SafetensorError("Error while opening: Cannot allocate memory (os error 12)"),
}  # fmt: skip
OTHERS = {
    "a shape": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    "an operation that is not supported": RuntimeError(
        "could not create a primitive descriptor for a matmul primitive"
    ),
    "a disk": av.error.OSError(errno.EIO, "Input/output error"),
    "a full disk": OSError(errno.ENOSPC, "No space left on device"),
    "a file that is called so": FileNotFoundError(errno.ENOENT, "No such file", "out of memory.mp4"),
    "words of the user": ValueError("out of memory"),
    "a message of ours": UsageError("There is no method 'out of memory'."),
    "broken data": av.error.InvalidDataError(1, "Invalid data"),
}


@pytest.mark.parametrize("whose", ROOM)
def test_it_is_known_whoever_says_it(whose):
    assert is_out_of_memory(ROOM[whose])
    with (
        pytest.raises(OutOfMemoryError, match=r"The (machine|device) ran out of memory\."),
        memory_errors(),
    ):
        raise ROOM[whose]


@pytest.mark.parametrize("what", OTHERS)
def test_other_errors_stay_what_they_are(what):
    assert not is_out_of_memory(OTHERS[what])
    with pytest.raises(type(OTHERS[what])) as raised, memory_errors():
        raise OTHERS[what]
    assert raised.value is OTHERS[what]


def test_what_is_told_already_is_not_told_again():
    told = OutOfMemoryError("clip.mp4 needs 9 GB.")
    with pytest.raises(OutOfMemoryError) as raised, memory_errors():
        raise told
    assert raised.value is told


def test_the_real_allocators_are_understood():
    with pytest.raises(OutOfMemoryError), memory_errors():
        np.zeros(2**60, np.uint8)
    with pytest.raises(OutOfMemoryError), memory_errors():
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(OutOfMemoryError), memory_errors():
        bytearray(2**60)


def test_the_disk_is_not_the_memory():
    assert issubclass(MediaError, Exception)
    assert not is_out_of_memory(MediaError("clip.mp4 can't be read: Input/output error."))
