"""A CUDA graph of one decoding step: some hundreds of kernels in one launch. Used on CUDA alone."""

from collections.abc import Callable

import torch
from torch import Tensor


class GraphedStep:
    """What `step` does on the device, captured once, to be replayed.

    Capturing runs nothing: the first replay does. `step` must have run before, so that what it sets up on its first
    run is there, and may only read and write tensors that live as long as this does.
    """

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = step()

    def replay(self) -> Tensor:
        """Run the step again; its result, in the place where every replay puts it."""
        self._graph.replay()
        return self._result
