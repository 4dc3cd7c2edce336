"""Running out of memory, in whatever way it comes, as one error."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from omniqa.errors import OutOfMemoryError


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn every way of running out of memory into OutOfMemoryError."""
    advice = "Use a lower --retention, --max-frames or --max-pixels, or a smaller model."
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(f"The device ran out of memory. {advice}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"The machine ran out of memory. {advice}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no type of its own for this on the CPU
            raise
        raise OutOfMemoryError(f"The machine ran out of memory. {advice}") from error
