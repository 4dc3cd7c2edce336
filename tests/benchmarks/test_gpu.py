"""The GPU benchmark runs at a small size on a CPU, and its floors are the operations that are really done."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from omniqa.models.qwen2_5_omni.audio import AudioEncoding
from omniqa.pruning import registry
from training.nano.blocks import MatmulAttention

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        return gpu.Model("tiny", CPU, torch.float32, "sdpa")


@pytest.fixture(scope="module")
def clip():
    return gpu.Clip.of(seconds=4, frames=8, height=112, width=112)


def test_one_command_measures_everything(tmp_path, capsys):
    out, plot = tmp_path / "gpu.json", tmp_path / "gpu.png"
    command = ["--shape", "tiny", "--device", "cpu", "--repeats", "1", "--warmup", "0", "--new-tokens", "2"]
    gpu.main([*command, "--json", str(out), "--plot", str(plot)])
    assert plot.stat().st_size > 10_000
    assert "| omnidrop 0.3 |" in capsys.readouterr().out
    record = json.loads(out.read_text())
    (result,) = record["results"]
    assert record["device"] == "cpu"
    for rows in result["tables"].values():
        names = [row["name"] for row in rows]
        assert names == ["transformers, sdpa", "omnidrop 1", "omnidrop 0.3", "omnidrop 0.2", "omnizip 0.3", "dash 0.3"]
        for row in rows[1:]:
            assert row["retention"] == pytest.approx(float(row["name"].split()[-1]), abs=0.02)
            assert sum(row["seconds"].values()) == pytest.approx(row["total_s"])
            assert set(row["seconds"]) > {"vision", "audio", "input pruning"}
            assert row["decoding"]["tokens_per_s"] > 0
    assert [row["clip_s"] for row in result["sweep"]] == [4, 8]


class Products(MatmulAttention):
    """Attention in products alone, which torch's counter counts; it does not know the kernels of a CPU."""

    def causal(self, q, k, v):
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        return self.dense(q[None], k[None], v[None])[0]


def operations(action):
    """What torch counts, and the result."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        result = action()
    return counter.get_total_flops(), result


def test_the_encoders_floors_are_what_torch_counts(model, clip, monkeypatch):
    for encoder in (model.vision_encoder, model.audio_encoder):
        monkeypatch.setattr(encoder, "attention", Products())
    vision, _ = operations(lambda: model.vision_encoder.encode(clip.frames))
    audio, _ = operations(lambda: model.audio_encoder.encode(clip.mel))
    assert gpu.shape_of(model).vision_encoder(clip.grids, clip.tokens_per_grid) == pytest.approx(vision, rel=1e-3)
    assert gpu.shape_of(model).audio_encoder(clip.mel.shape[1]) == pytest.approx(audio, rel=1e-3)


@pytest.mark.parametrize("retention", [1.0, 0.3])
def test_the_decoders_floor_is_what_torch_counts(model, clip, retention, monkeypatch):
    """But for the masked half of attention, scores and the head, which are no part of a floor."""
    monkeypatch.setattr(model.decoder, "attention", Products())
    monkeypatch.setattr(
        "omniqa.models.layer_pruner.attention_received",
        lambda q, k, rows, keys: torch.rand(keys.stop - keys.start),
    )
    monkeypatch.setattr(model.decoder, "logits", lambda x: x)
    monkeypatch.setattr(gpu, "decode", lambda model, cache, new_tokens: None)
    encoders = ("vision_encoder", "audio_encoder")
    encoded = {
        name: getattr(model, name).encode(given) for name, given in zip(encoders, (clip.frames, clip.mel), strict=True)
    }
    for name, result in encoded.items():
        monkeypatch.setattr(getattr(model, name), "encode", lambda given, result=result: result)
    monkeypatch.setattr(AudioEncoding, "attention_received", lambda self, scope: torch.rand(len(self.embeddings)))
    counted, run = operations(lambda: gpu.run_omniqa(model, clip, registry.create("omnidrop", retention), 1))
    masked = sum(2 * n * n for n in run.lengths[:-1]) * model.config.get_text_config().hidden_size
    assert gpu.shape_of(model).prefill(run.lengths) == pytest.approx(counted - masked, rel=1e-3)


def test_a_case_that_runs_out_of_memory_is_shown_without_figures(model, clip):
    def fail():
        raise torch.OutOfMemoryError("too much")

    line = gpu.Line("too long", fail)
    gpu.measure(model, [line], repeats=3, warmup=1)
    rates = {"matmul": 1.0, "copy": 1.0}
    assert gpu.summary(model, clip, line, rates) == {"name": "too long", "note": "out of memory"}


def test_stages_end_where_they_are_marked():
    marks = gpu.Marks(CPU)
    for name in ("start", "one", "two", "one"):
        marks.mark(name)
    assert set(marks.seconds()) == {"one", "two"}
