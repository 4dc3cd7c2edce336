"""`omniqa plan` tells what a clip costs, and how long that takes here."""

import json


def test_plan_tells_the_operations_of_each_stage(omniqa):
    code, out, _ = omniqa("plan", "--model", "Qwen/Qwen2.5-Omni-3B", "--seconds", 16)
    assert code == 0
    assert "vision encoder" in out
    assert "TFLOP/s" not in out


def test_measure_predicts_seconds(omniqa):
    code, out, _ = omniqa("plan", "--model", "Qwen/Qwen2.5-Omni-3B", "--measure", "--json")
    planned = json.loads(out)
    assert code == 0
    assert planned["flop_per_s"] > 0
    assert planned["flop"]["vision_encoder"] > planned["flop"]["audio_encoder"] > 0
    assert "no stage can be faster" in omniqa("plan", "--model", "Qwen/Qwen2.5-Omni-3B", "--measure")[1]
