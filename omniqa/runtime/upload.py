"""Moving what the machine holds to where the model is."""

import torch
from torch import Tensor


def upload(x: Tensor, device: torch.device) -> Tensor:
    """`x`, which is on the CPU, on `device`, as it is. To CUDA from pinned memory, so that nothing waits for it."""
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
