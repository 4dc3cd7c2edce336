"""A checkpoint is found, checked before it is loaded, and read no further than the Thinker."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch

from omniqa.errors import ModelError
from omniqa.models.base import STANDARD
from omniqa.models.qwen2_5_omni.checkpoint import (
    HUB_7B,
    PIXEL_BOUNDS,
    find_checkpoint,
    pixel_bounds,
)
from omniqa.models.qwen2_5_omni.thinker import load_thinker
from omniqa.nano.architecture import VIDEO_PREPROCESSOR
from omniqa.pipeline import engine
from omniqa.pruning import registry
from tests.models.qwen2_5_omni.clips import make_clip

CPU = torch.device("cpu")
MAPS = Path("/proc/self/maps")


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the checkpoint to damage."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def shard_of(folder, prefix):
    """A shard that holds a tensor whose name begins so, and nothing of the Thinker where that is asked for."""
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {shard for name, shard in weight_map.items() if name.startswith(prefix)}
    thinker = {shard for name, shard in weight_map.items() if name.startswith("thinker.")}
    return folder / min(shards if prefix == "thinker." else shards - thinker)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def first_logits(folder, dtype=None):
    qa = engine.OmniQA("test", load_thinker(find_checkpoint(str(folder)), CPU, dtype))
    return qa.prefiller.prefill(
        qa.encode(make_clip(frames=2, seconds=1.0)), "?", registry.create("none", 1.0)
    ).result.logits


def test_it_is_laid_out_as_on_the_hub(checkpoint):
    weight_map = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    assert {".".join(name.split(".")[:2]) for name in weight_map if name.startswith("thinker.")} == {
        "thinker.audio_tower",
        "thinker.lm_head",
        "thinker.model",
        "thinker.visual",
    }
    assert {name.split(".")[0] for name in weight_map} == {"thinker", "talker", "token2wav"}


def test_shards_without_the_thinker_are_not_even_opened(copy):
    expected = first_logits(copy)
    shard_of(copy, "token2wav.").unlink()
    torch.testing.assert_close(first_logits(copy), expected)


def test_talker_tensors_are_not_read_from_shared_shards(checkpoint):
    found = find_checkpoint(str(checkpoint))
    assert all(name.startswith("thinker.") for name in found.tensors)
    assert found.stored_bytes == 4 * found.elements


@pytest.mark.skipif(not MAPS.exists(), reason="needs /proc to see what is mapped where")
def test_weights_of_the_stored_dtype_stay_in_the_mapped_files(checkpoint):
    thinker = load_thinker(find_checkpoint(str(checkpoint)), CPU)
    address = thinker.decoder.layers[0].mlp.gate_proj.weight.data_ptr()
    mapped = [line.split(maxsplit=5) for line in MAPS.read_text().splitlines()]
    ranges = {tuple(int(end, 16) for end in fields[0].split("-")): fields[-1] for fields in mapped}
    file = next(name for (start, end), name in ranges.items() if start <= address < end)
    assert file.endswith(".safetensors")
    assert thinker.dtype == torch.float32
    assert not thinker.module.training


def test_the_hubs_older_rope_settings_load_to_the_same_model(copy):
    """On the hub, text_config has rope_theta and rope_scaling where transformers now writes rope_parameters."""
    expected = first_logits(copy)
    config = json.loads((copy / "config.json").read_text())
    text = config["thinker_config"]["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"mrope_section": rope["mrope_section"], "rope_type": "default", "type": "default"}
    (copy / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(first_logits(copy), expected)


def test_bfloat16_is_near_float32(checkpoint):
    exact, rounded = first_logits(checkpoint), first_logits(checkpoint, torch.bfloat16)
    assert (rounded - exact).norm() / exact.norm() < 0.05


def test_a_thinker_saved_alone_loads_as_well(checkpoint, tmp_path, qa):
    qa.model.module.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, tmp_path)
    # Close, not equal: the weights lie at other addresses, and kernels may sum in another order there.
    torch.testing.assert_close(first_logits(tmp_path), first_logits(checkpoint))


def test_it_is_found_in_the_hubs_local_cache_without_a_network(checkpoint, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--omni" / "snapshots" / "0123"
    shutil.copytree(checkpoint, snapshot)
    (tmp_path / "models--someone--omni" / "refs").mkdir()
    (tmp_path / "models--someone--omni" / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_checkpoint("someone/omni").folder == snapshot
    with pytest.raises(ModelError, match="not in the local cache"):
        find_checkpoint("someone/else")


def test_another_architecture_is_refused(copy):
    edit_config(copy, model_type="llama")
    with pytest.raises(ModelError, match=r"is a llama; omniqa runs Qwen2.5-Omni"):
        find_checkpoint(str(copy))


def test_a_missing_shard_is_named(copy):
    shard = shard_of(copy, "thinker.")
    shard.unlink()
    with pytest.raises(ModelError, match=shard.name):
        find_checkpoint(str(copy))


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_truncated_shard_is_named(copy, kept):
    shard = shard_of(copy, "thinker.")
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ModelError, match=f"{shard.name}.*Download it again"):
        find_checkpoint(str(copy))


def test_a_broken_header_is_named(copy):
    shard = shard_of(copy, "thinker.")
    content = bytearray(shard.read_bytes())
    content[8:12] = b"\xff\xff\xff\xff"
    shard.write_bytes(content)
    with pytest.raises(ModelError, match=f"{shard.name} has a broken header"):
        find_checkpoint(str(copy))


def test_a_tensor_that_the_index_promises_must_be_there(copy):
    shard = shard_of(copy, "thinker.")
    content = shard.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = next(key for key in header if key.startswith("thinker."))
    header["thinker.renamed"] = header.pop(name)
    text = json.dumps(header).encode()
    shard.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ModelError, match=f"lacks the tensor {name}"):
        find_checkpoint(str(copy))


def test_weights_must_fit_the_configuration(copy):
    config = json.loads((copy / "config.json").read_text())
    config["thinker_config"]["text_config"]["intermediate_size"] += 8
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="do not fit the configuration"):
        load_thinker(find_checkpoint(str(copy)), CPU)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_small_files_are_told(copy, name):
    (copy / name).unlink()
    with pytest.raises(ModelError, match="tokenizer" if name == "tokenizer.json" else "lacks config.json"):
        find_checkpoint(str(copy))


def test_a_folders_own_pixel_bounds_are_those_that_transformers_reads(copy):
    pytest.importorskip("torchvision", reason="transformers' video processor needs torchvision; `make test` has it")
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    assert pixel_bounds(str(copy)) == pixel_bounds(HUB_7B) == STANDARD.pixel_bounds
    (copy / PIXEL_BOUNDS).write_text(json.dumps(VIDEO_PREPROCESSOR))
    size = Qwen2VLVideoProcessor.from_pretrained(copy).size
    assert pixel_bounds(str(copy)) == (size["shortest_edge"], size["longest_edge"]) == (112**2, 168**2)


def test_names_that_are_nothing_are_refused():
    with pytest.raises(ModelError, match="no folder"):
        find_checkpoint("no-such-folder")
