"""What fits a machine: one estimate, one choice, and advice that was not followed already."""

from dataclasses import replace
from pathlib import Path

import pytest

from omniqa.cli.options import PruningFlags
from omniqa.errors import OutOfMemoryError
from omniqa.models.qwen2_5_omni.checkpoint import HUB_3B, HUB_7B, NANO, find_checkpoint
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.models.stored_quantization import StoredQuantization
from omniqa.pipeline.fit import (
    GIB,
    METHOD,
    RETENTION,
    Choice,
    ModelRequest,
    advice,
    choose,
    layer_counts,
    minute,
    need,
    pick,
    require_weights,
    requirements,
    weight_bytes,
)
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.runtime.machine import Machine

ROOT = Path(__file__).parents[2]


def machine(ram, gpu=None):
    """A machine with so many GiB free."""
    free = None if gpu is None else round(gpu * GIB)
    return Machine(round(ram * GIB), 10**12, free, None if gpu is None else "GPU")


def tried(here, model, device, dtype="auto"):
    shape = ModelShape.of(model)
    return Choice(model, device, need(shape, minute(shape.layers), device, dtype), here.free_on(device))


@pytest.mark.parametrize(
    ("ram", "gpu", "model", "device"),
    [
        (16, 8, HUB_3B, "cpu"),
        (16, None, HUB_3B, "cpu"),
        (64, None, HUB_3B, "cpu"),
        (8, 12, HUB_3B, "cuda"),
        (16, 16, HUB_3B, "cuda"),
        (16, 23.5, HUB_7B, "cuda"),
        (8, 80, HUB_7B, "cuda"),
    ],
)
def test_the_first_that_fits_is_taken(ram, gpu, model, device):
    choice = choose(machine(ram, gpu))
    assert (choice.model, choice.device, choice.fits, choice.warning) == (model, device, True, None)


@pytest.mark.parametrize(("ram", "gpu"), [(8, None), (8, 8), (2, 4)])
def test_if_nothing_fits_the_error_says_what_is_needed_and_what_is_there(ram, gpu):
    with pytest.raises(OutOfMemoryError, match=rf"needs 8\.8 GiB for its weights alone, .* and {ram}\.0 GiB are free"):
        choose(machine(ram, gpu))
    assert not pick(machine(ram, gpu)).weights_fit


def test_weights_that_fit_without_a_minutes_clip_are_taken_with_a_warning():
    choice = choose(machine(10))
    assert (choice.model, choice.device) == (HUB_3B, "cpu")
    assert "max_frames" in str(choice.warning)
    assert "device" not in str(choice.warning)
    assert "model" not in str(choice.warning)


@pytest.mark.parametrize(
    ("request_", "model", "device"),
    [
        (ModelRequest(HUB_7B), HUB_7B, "cpu"),
        (ModelRequest(HUB_7B, "cpu"), HUB_7B, "cpu"),
        (ModelRequest(device="cpu"), HUB_3B, "cpu"),
        (ModelRequest(HUB_3B, "cuda:1"), HUB_3B, "cuda:1"),
        (ModelRequest(HUB_3B, "cuda:0,cuda:1"), HUB_3B, "cuda:0,cuda:1"),
        (ModelRequest(NANO), NANO, "cuda"),
    ],
)
def test_what_the_user_names_stays(request_, model, device):
    choice = choose(machine(32, 12), request_)
    assert (choice.model, choice.device) == (model, device)


def test_several_gpus_need_each_their_own_context_and_room_for_a_layer():
    shape = ModelShape.of(HUB_7B)
    one, two, three = (
        need(shape, minute(28), devices) for devices in ("cuda:0", "cuda:0,cuda:1", "cuda:0,cuda:1,cuda:2")
    )
    assert (one.weights, one.kv_cache) == (two.weights, two.kv_cache)
    assert two.overhead == 2 * one.overhead
    assert one.activations < two.activations < 2 * one.activations
    assert three.activations - two.activations == two.activations - one.activations


@pytest.mark.parametrize("quantize", [None, "nf4"])
@pytest.mark.parametrize("free", [[14, 14], [8, 24], [24, 8], [10, 10, 10]])
def test_the_first_gpu_gets_fewer_layers_for_it_has_the_encoders(quantize, free):
    shape, sizes = ModelShape.of(HUB_7B), [size * GIB for size in free]
    counts = layer_counts(shape, "auto", quantize, sizes)
    decoder = shape.decoder_parameters * (4.5 / 8 if quantize else 2)
    encoders = weight_bytes(shape, 2, quantize, "cuda") - decoder
    taken = [count * decoder / 28 for count in counts]
    taken[0] += encoders
    left = [size - part for size, part in zip(sizes, taken, strict=True)]
    assert sum(counts) == 28
    assert max(left) - min(left) <= decoder / 28 or counts[left.index(min(left))] == 0
    assert min(left) > 0


def test_a_device_that_nobody_knows_yet_is_left_to_torch():
    assert choose(machine(16), ModelRequest(HUB_7B, "cuda")).free is None


@pytest.mark.parametrize(
    ("here", "request_", "said", "unsaid"),
    [
        (machine(16, 8), ModelRequest(HUB_7B, "cuda"), ['{model="Qwen/Qwen2.5-Omni-3B"} {device="cpu"}'], []),
        (machine(16, 8), ModelRequest(HUB_3B, "cuda"), ['{device="cpu"}'], ["{model"]),
        (machine(16), ModelRequest(HUB_7B), ['{model="Qwen/Qwen2.5-Omni-3B"}'], ["{device"]),
        (machine(16), ModelRequest(HUB_3B, dtype="float32"), ['{dtype="bfloat16"}'], ["{device", "{model"]),
        (
            machine(16),
            ModelRequest(HUB_7B, "cpu", "float32"),
            ['{model="Qwen/Qwen2.5-Omni-3B"} {dtype="bfloat16"}'],
            [],
        ),
        (machine(8), ModelRequest(HUB_3B, "cpu"), ["Close other programs"], ["--"]),
        (machine(8), ModelRequest(HUB_7B, "cpu"), ["Close other programs"], ["--"]),
    ],
)
def test_advice_names_only_what_was_not_done_and_would_help(here, request_, said, unsaid):
    with pytest.raises(OutOfMemoryError) as raised:
        choose(here, request_)
    assert all(words in raised.value.advice for words in said)
    assert not any(words in raised.value.advice for words in unsaid)


def test_a_smaller_clip_is_advised_only_if_the_weights_fit():
    here = machine(16, 10)
    assert "a lower {max_frames}" in advice(here, tried(here, HUB_3B, "cuda"), smaller_clip=["a lower {max_frames}"])
    here = machine(4, 4)
    assert "max_frames" not in advice(here, tried(here, HUB_3B, "cuda"), smaller_clip=["a lower {max_frames}"])


def test_weights_larger_than_their_configuration_says_are_refused():
    nano = ModelRequest(NANO, "cpu", "float32")
    require_weights(machine(1), nano, GIB)
    with pytest.raises(OutOfMemoryError, match=r"1\.0 GiB are free"):
        require_weights(machine(1), nano, GIB + 1)


def test_weights_are_as_many_bytes_as_the_file_holds():
    shape = ModelShape.of(NANO)
    assert need(shape, minute(shape.layers)).weights == find_checkpoint(NANO).stored_bytes


def test_more_tokens_need_more_memory_and_dropping_them_less():
    shape = ModelShape.of(HUB_3B)
    plans = [registry.create(METHOD, kept).plan(ClipTokens(1500, 60, 720), shape.layers) for kept in (1.0, 0.3, 0.1)]
    caches, activations = ([getattr(need(shape, plan), part) for plan in plans] for part in ("kv_cache", "activations"))
    assert caches == sorted(caches, reverse=True)
    assert activations == sorted(activations, reverse=True)
    assert caches[0] > 3 * caches[1]


def test_the_defaults_are_those_of_the_command_line():
    assert (PruningFlags().method, PruningFlags().retention) == (METHOD, RETENTION)


def test_a_sound_alone_is_planned_for():
    shape = ModelShape.of(HUB_3B)
    plan = registry.create(METHOD, RETENTION).plan(ClipTokens(1500, 0, 0), shape.layers)
    assert need(shape, plan).activations > 0


def test_the_readme_and_docs_state_what_the_function_says():
    needs = requirements()
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for model, device in ((HUB_7B, "cuda"), (HUB_3B, "cuda"), (HUB_3B, "cpu")):
        assert f"{needs[model, device].total / GIB:.1f} GiB" in readme
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    for (model, device), one in needs.items():
        sizes = (one.weights, one.kv_cache, one.activations, one.overhead, one.total)
        name = f"{model.rpartition('-')[2]}, {'CPU' if device == 'cpu' else 'GPU'}"
        assert f"| {name} | {' | '.join(f'{size / GIB:.1f}' for size in sizes)} |" in page


def test_quantised_weights_count_a_byte_each_but_for_what_stays_in_float():
    shape = ModelShape.of(HUB_3B)
    plain, small = need(shape, minute(shape.layers)), need(shape, minute(shape.layers), quantize="int8")
    linear = 36 * (2048 * (2 * 2048 + 2 * 256) + 3 * 2048 * 11008)  # of the decoder's layers
    linear += 32 * (4 * 1280**2 + 3 * 1280 * 3420) + 5120**2 + 5120 * 2048  # of the vision encoder
    linear += 32 * (4 * 1280**2 + 2 * 1280 * 5120) + 1280 * 2048  # of the audio encoder
    head = 151936 * 2048
    assert plain.weights - small.weights == linear + head
    # Embeddings that lm_head shares stay floats, and its bytes come beside them.
    tied = replace(shape, tied=True, parameters=shape.parameters - head)
    plain, small = need(tied, minute(shape.layers)), need(tied, minute(shape.layers), quantize="int8")
    assert plain.weights - small.weights == linear - head
    assert choose(machine(7), ModelRequest(HUB_3B, "cpu", quantize="int8")).need == small
    with pytest.raises(OutOfMemoryError):
        choose(machine(7), ModelRequest(HUB_3B, "cpu"))


@pytest.mark.parametrize(("quantize", "bits"), [("fp8", 8), ("nf4", 4.5)])
def test_weights_that_are_widened_count_by_their_bits_in_the_decoder_alone(quantize, bits):
    shape = ModelShape.of(HUB_3B)
    plain, small = need(shape, minute(shape.layers)), need(shape, minute(shape.layers), quantize=quantize)
    decoder = 36 * (2048 * (2 * 2048 + 2 * 256) + 3 * 2048 * 11008)
    assert plain.weights - small.weights == decoder * (16 - bits) / 8


@pytest.mark.parametrize(("bits", "method"), [(4, "gptq"), (8, "gptq"), (4, "awq")])
def test_a_checkpoint_that_is_quantised_counts_by_the_bits_in_its_settings(bits, method):
    settings = {"quant_method": method, "bits": bits, "group_size": 128}
    shape = replace(ModelShape.of(HUB_7B), quantization=StoredQuantization(method, settings))
    plain, small = need(ModelShape.of(HUB_7B), minute(28)), need(shape, minute(28))
    saved = shape.decoder_parameters * (16 - bits - (16 + bits) / 128) / 8
    assert plain.weights - small.weights == pytest.approx(saved, abs=2)
    assert plain.kv_cache == small.kv_cache


def test_what_is_pruned_inside_the_vision_encoder_is_not_held():
    shape, method = ModelShape.of(HUB_3B), registry.create("omnidrop", 0.3, vision_block=8)
    plan = method.plan(ClipTokens(1500, 60, 900), shape.layers)
    rule = method.vision_rule(plan)
    whole, early = need(shape, plan), need(shape, plan, rule=rule)
    dropped = plan.clip.n_video - sum(rule.counts(60, 900))
    vision = [shape.vision_bytes(plan.clip, 2, True, 2048, one) for one in (None, rule)]
    assert whole.activations - early.activations >= 2 * 2048 * dropped - (vision[1] - vision[0])
    assert vision[1] >= vision[0]  # more grids are encoded together
