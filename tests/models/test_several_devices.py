"""A decoder whose layers are on several devices: each product and each cache is where its layer is.

Tensors without values say which of two devices they are on: no operation but a move may take them of both.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from omniqa.models.base import AUDIO, VIDEO
from omniqa.models.decode_step import DecodeStep
from omniqa.models.decoder import Decoder
from omniqa.models.prefill_rows import PrefillInput
from omniqa.models.prefix_cache import shared_layers
from omniqa.models.qwen2_5_omni import quantized, thinker
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.runtime.attention import SdpaAttention
from omniqa.runtime.device import split_layers
from omniqa.runtime.kv_cache import KVCache

FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)
ROW = (FIRST,) * 4 + (SECOND,) * 8
GPUS = [torch.device("cuda", number) for number in (0, 0, 1, 1, 2, 2)]
HEAD, TAIL, NEW = 5, 7, 3
CLIP = ClipTokens(20, 4, 15)


class OneDeviceOnly(TorchDispatchMode):
    """Refuses operations on tensors of two devices, all but moves."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is not torch.ops.aten._to_copy.default:
            assert len({tensor.device for tensor in tensors}) <= 1, func
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return thinker.load_thinker(find_checkpoint(str(checkpoint)), torch.device("cpu"))


@pytest.fixture
def parts(loaded):
    """The small Thinker's module, decoder and head, for one test to take apart."""
    return copy.deepcopy((loaded.module, loaded.decoder, loaded.lm_head))


@pytest.fixture
def modes(monkeypatch):
    def numbered(values, device):
        """torch.tensor, which itself forgets the number of a CPU."""
        return torch.zeros(len(values), dtype=torch.long, device=device)

    monkeypatch.setattr(torch, "tensor", numbered)
    with FakeTensorMode(allow_non_fake_inputs=True), OneDeviceOnly():
        yield


def put(module, device):
    """Give a module tensors without values on a device."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    tensors[name] = torch.nn.Parameter(empty, False) if tensors is part._parameters else empty


@pytest.fixture
def decoder(parts, modes):
    module, stack, head = parts
    put(module, FIRST)
    stack.layers.extend(copy.deepcopy([*stack.layers]))
    for layer, device in zip(stack.layers, ROW, strict=True):
        put(layer, device)
    return Decoder(stack, head, SdpaAttention())


def prompt(width):
    n = CLIP.n
    modality = torch.full((n,), VIDEO, dtype=torch.int8, device=FIRST)
    modality[CLIP.n_video :] = AUDIO
    tokens = HEAD + n + TAIL
    return PrefillInput(
        embeddings=torch.empty(tokens, width, device=FIRST),
        positions=torch.empty(3, tokens, dtype=torch.long, device=FIRST),
        media=slice(HEAD, HEAD + n),
        question=torch.arange(-4, -1, device=FIRST),
        index=torch.arange(n, device=FIRST),
        modality=modality,
        chunk=torch.zeros(n, dtype=torch.long, device=FIRST),
        max_chunk=3,
        added=torch.empty(4, n, width, device=FIRST),
    )


def from_caches():
    """A method that also prunes the caches of the layers before, and so of the other device."""
    method = registry.create("omnidrop", 0.5, tds=False)
    prune = method.prune_layer
    object.__setattr__(method, "prune_layer", lambda *given: replace(prune(*given), prune_caches=True))
    return method


# By attention in many layers or in one, by a layer's output, not at all.
METHODS = {
    "omnidrop": lambda: registry.create("omnidrop", 0.5, tds=False),
    "from caches": from_caches,
    "fastv": lambda: registry.create("fastv", 0.5),
    "omnifocus": lambda: registry.create("omnifocus", 0.5),
    "none": lambda: registry.create("none", 1.0),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("reuse", [False, True])
def test_what_goes_through_the_layers_is_always_where_the_layer_is(decoder, name, reuse):
    method = METHODS[name]()
    plan = method.plan(CLIP, len(ROW))
    asked, cache, prefix = prompt(decoder.model.config.hidden_size), KVCache(len(ROW), NEW), None
    if plan.kept[0] < CLIP.n:
        asked = cut(asked, plan.kept[0])
    if reuse:
        count = shared_layers(method, plan, 1, len(ROW))
        prefix = decoder.prefill_media(asked, count) if count else None
    result = decoder.prefill(asked, method, plan, cache, prefix=prefix)
    step = DecodeStep(decoder, cache, 100)
    assert {step(token).device for token in (3, 4)} == {FIRST}
    assert result.logits.device == FIRST
    assert tuple(cache.storage(layer)[0].device for layer in range(len(ROW))) == ROW
    assert [len(index) for index in result.alive] == list(plan.kept)


def cut(asked, count):
    """The same with only `count` of the clip's tokens."""
    gone = len(asked.index) - count
    return replace(
        asked,
        embeddings=asked.embeddings[gone:],
        positions=asked.positions[:, gone:],
        media=slice(HEAD, HEAD + count),
        index=asked.index[:count],
    )


def test_a_layer_that_stayed_behind_is_noticed(decoder):
    put(decoder.model.layers[7].mlp, FIRST)
    method, cache = registry.create("none", 1.0), KVCache(len(ROW), NEW)
    with pytest.raises((AssertionError, RuntimeError)):
        decoder.prefill(prompt(decoder.model.config.hidden_size), method, method.plan(CLIP, len(ROW)), cache)


def places(module):
    return {name: tensor.device for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def test_each_layer_is_loaded_to_its_own_device_and_all_else_to_the_first(parts):
    module, stack, _ = parts
    cpu, meta = torch.device("cpu"), torch.device("meta")  # which stands for the second device
    row = [cpu] * 2 + [meta] * 4
    thinker._place(module, stack, cpu, row)
    assert [{*places(layer).values()} for layer in stack.layers] == [{device} for device in row]
    inside = {id(tensor) for tensor in [*stack.layers.parameters(), *stack.layers.buffers()]}
    others = [tensor for tensor in [*module.parameters(), *module.buffers()] if id(tensor) not in inside]
    assert {tensor.device for tensor in others} == {cpu}


def test_transformers_is_told_one_device_for_every_tensor(loaded):
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as kind

    found = quantized._device_map(kind, loaded.config, GPUS[0], GPUS)
    inside = next(path for path, part in loaded.module.named_modules() if part is loaded.decoder.layers)
    for name in places(loaded.module):
        parts_of_it = [path for path in found if name.startswith(f"{path}.")]
        assert len(parts_of_it) == 1, name
        layer = name.removeprefix(f"{inside}.").split(".")[0] if name.startswith(inside) else "0"
        assert found[parts_of_it[0]] == GPUS[int(layer)]


def test_one_device_needs_no_names():
    assert quantized._device_map(None, None, FIRST, ()) == {"": FIRST}


@pytest.mark.parametrize("first", [0, 40, 90])
@pytest.mark.parametrize("free", [[100, 100], [60, 160, 60], [200, 20], [90] * 8])
def test_layers_are_split_so_that_each_device_has_as_much_left(first, free):
    counts = split_layers(28, 3, first, free)
    left = [size - 3 * count for size, count in zip([free[0] - first, *free[1:]], counts, strict=True)]
    assert sum(counts) == 28
    assert all(left[device] + 3 >= max(left) for device, count in enumerate(counts) if count)
