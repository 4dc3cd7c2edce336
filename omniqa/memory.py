"""Out of memory, in every type and wording that it comes in, as one error. Free of torch, so that all may use it."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from omniqa.errors import OmniqaError, OutOfMemoryError

MORE_MEMORY = "Close other programs, or use a machine with more memory."  # if nothing else would help

# Libraries that have no type of their own for it say it in words, in lower case here. Of torch, oneDNN and the C++
# library; of the dynamic loader; of Rust's safetensors; of Python's and OpenMP's threads, whose stacks are memory too.
_WORDINGS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to allocate",
    "bad_alloc",
    "bad allocation",
    "could not create a memory",
    "could not execute a primitive",
    "alloc_failed",  # cuBLAS and cuDNN: CUBLAS_STATUS_ALLOC_FAILED
    "failed to map segment",
    "malloc",
    "os error 12",
    "can't start new thread",
    "thread creation failed",
)
# oneDNN: an operation's code has no room. Without a "primitive descriptor", the operation is not supported at all.
_PRIMITIVE = re.compile("could not create a primitive(?! desc)")
# A RuntimeError's or ImportError's words are a library's own. Those of other types may quote the user.
_WORDY = (RuntimeError, ImportError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; numpy's and FFmpeg's errors for it are MemoryErrors."""
    if isinstance(error, OmniqaError):
        return isinstance(error, OutOfMemoryError)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # FFmpeg's EAGAIN is no room for a thread: where it means that there is nothing yet, PyAV waits.
    if _is_of(error, "torch", "OutOfMemoryError") or _is_of(error, "av.error", "BlockingIOError"):
        return True
    wordy = isinstance(error, _WORDY) or _is_of(error, "safetensors", "SafetensorError")
    said = str(error).lower()
    return wordy and (any(wording in said for wording in _WORDINGS) or _PRIMITIVE.search(said) is not None)


def out_of_memory(error: BaseException, what: str = "") -> OutOfMemoryError:
    """The one sentence about it.

    Args:
        error: what `is_out_of_memory` is true of.
        what: what was done, as ", while clip.mp4 was read"; it follows "ran out of memory".
    """
    if isinstance(error, OutOfMemoryError):
        return error
    on_device = _is_of(error, "torch", "OutOfMemoryError") or "cuda" in str(error).lower()
    return OutOfMemoryError(f"The {'device' if on_device else 'machine'} ran out of memory{what}.")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn every way of running out of memory into OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OmniqaError) or not is_out_of_memory(error):
            raise
        raise out_of_memory(error) from error


def _is_of(error: BaseException, module: str, name: str) -> bool:
    """Whether an error is of a module's class; a module that was never imported raised nothing."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
