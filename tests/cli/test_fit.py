"""Which model is taken if none is named: ask, plan and doctor agree, before anything is downloaded."""

import json

import pytest

from omniqa.errors import OutOfMemoryError
from omniqa.pipeline.fit import GIB
from omniqa.runtime.machine import Machine


@pytest.fixture
def on_machine(monkeypatch):
    """Let the commands find so many GiB free; give what they find from then on."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def be(ram, gpu=None):
        free = None if gpu is None else gpu * GIB
        here = Machine(ram * GIB, 10**12, free, None if gpu is None else "GPU")
        monkeypatch.setattr("omniqa.runtime.machine.read_machine", lambda device="auto": here)

    return be


def model_that_fits(omniqa):
    _, out, _ = omniqa("doctor", "--json")
    return next(finding for finding in json.loads(out) if finding["subject"] == "model that fits")


def test_a_small_gpu_leaves_the_3b_to_the_cpu_whoever_is_asked(omniqa, clip, on_machine):
    on_machine(ram=16, gpu=8)
    planned = json.loads(omniqa("plan", "--json")[1])
    assert (planned["model"], planned["memory"]["device"]) == ("Qwen/Qwen2.5-Omni-3B", "cpu")
    assert "Qwen/Qwen2.5-Omni-3B on the CPU" in model_that_fits(omniqa)["found"]
    code, _, err = omniqa("ask", clip, "What?")
    assert code == 4  # it is not in the cache of this machine, and can't be downloaded
    assert "Qwen/Qwen2.5-Omni-3B" in err


@pytest.mark.parametrize("command", ["ask", "bench", "batch"])
def test_if_nothing_fits_it_ends_before_a_download(omniqa, clip, on_machine, command):
    on_machine(ram=8)
    code, out, err = omniqa(command, clip, "What?")
    assert (code, out, len(err.splitlines())) == (5, "", 1)
    assert "8.8 GiB" in err
    assert "8.0 GiB are free" in err


def test_if_nothing_fits_eval_ends_before_a_download(omniqa, on_machine):
    on_machine(ram=8)
    code, _, err = omniqa("eval", "nano", "--clips", 1)
    assert code == 5
    assert "8.0 GiB are free" in err


def test_if_nothing_fits_plan_still_plans_and_doctor_says_so(omniqa, on_machine):
    on_machine(ram=8)
    code, out, _ = omniqa("plan")
    assert code == 0
    assert "does not fit" in out
    found = model_that_fits(omniqa)
    assert "none but nano" in found["found"]
    assert "8.0 GiB are free" in found["advice"]


def test_a_large_gpu_gets_the_7b(omniqa, on_machine):
    on_machine(ram=16, gpu=24)
    planned = json.loads(omniqa("plan", "--json")[1])
    assert (planned["model"], planned["memory"]["device"]) == ("Qwen/Qwen2.5-Omni-7B", "cuda")
    assert planned["memory"]["total_bytes"] < planned["memory"]["free_bytes"]


def test_a_tight_fit_is_a_warning(omniqa, clip, on_machine):
    on_machine(ram=10)
    code, _, err = omniqa("ask", clip, "What?")
    assert code == 4
    assert "warning: Qwen/Qwen2.5-Omni-3B needs 11.9 GiB" in err


def test_plan_shows_the_memory_of_its_clip(omniqa, on_machine):
    on_machine(ram=16)
    short, long = (json.loads(omniqa("plan", "--seconds", seconds, "--json")[1])["memory"] for seconds in (8, 60))
    assert short["weights_bytes"] == long["weights_bytes"]
    assert short["kv_cache_bytes"] < long["kv_cache_bytes"]
    assert "KV cache" in omniqa("plan", "--seconds", 8)[1]


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ([], ["--retention", "--max-frames", "--max-pixels"], ["--device", "--model"]),
        (["--method", "none"], ["--method omnidrop"], ["--retention"]),
        (["--retention", "0.1", "--max-frames", "8", "--max-pixels", "100352"], ["Close other programs"], ["--"]),
    ],
)
def test_running_out_of_memory_advises_what_was_not_done(omniqa, clip, monkeypatch, options, said, unsaid):
    def no_room(*_, **__):
        raise OutOfMemoryError("The machine ran out of memory.")

    monkeypatch.setattr("omniqa.pipeline.engine.OmniQA.ask_all", no_room)
    code, _, err = omniqa("ask", clip, "What?", "--model", "nano", "-q", *options)
    assert (code, len(err.splitlines())) == (5, 1)
    assert all(words in err for words in said)
    assert not any(words in err for words in unsaid)
