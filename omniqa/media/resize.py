"""Getting a picture to the size the model looks at."""

import numpy as np


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a picture, bicubic with antialias.

    Args:
        frame: uint8, shape (H, W, 3).
        size: (height, width) wanted.

    Returns:
        uint8, shape (height, width, 3); the frame itself where it has that size already.
    """
    if frame.shape[:2] == size:
        return frame
    import torch  # not for clips that have the size already
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
    sized = interpolate(pixels, size, mode="bicubic", antialias=True)
    return np.ascontiguousarray(sized[0].permute(1, 2, 0).numpy())
