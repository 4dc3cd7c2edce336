"""The checkpoint that comes with omniqa answers, looks and listens, and is an ordinary checkpoint for transformers."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import omniqa
from omniqa.eval.nano import NanoClips
from omniqa.media.clip import sample
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint
from omniqa.nano import world
from omniqa.nano.clips import write_clip
from tests import reference_model as reference

SAMPLES = Path(__file__).parents[2] / "sample_media"


@pytest.fixture(scope="module")
def nano():
    return omniqa.load("nano", device="cpu")


@pytest.fixture(scope="module")
def samples(nano):
    """The sample clips, encoded once for all questions."""
    return {path.stem: nano.encode(path) for path in SAMPLES.glob("*.mp4")}


@pytest.fixture(scope="module")
def folder():
    return find_checkpoint("nano").folder


def test_it_is_small_and_loads_from_the_package(nano, folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40e6
    assert nano.name == "nano"
    assert nano.pixels == (112**2, 168**2)
    assert nano.model.layers >= 14


def test_transformers_gives_the_same_answers(nano, folder, tmp_path):
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    processor = reference.make_processor(folder)
    module = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder).eval()
    script = world.draw(3, 6, 2)
    clip = sample(write_clip(tmp_path / "clip.mp4", script, 168))
    taken = nano.encode(clip)
    for question in [one.prompt for one in world.questions(script)][:4]:
        batch = reference.inputs(processor, clip.frames, clip.waveform, question)
        with torch.inference_mode():
            ids = module.generate(**batch, max_new_tokens=48, do_sample=False, eos_token_id=list(nano.model.end_tokens))
        said = nano.model.tokenizer.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        assert nano.ask(taken, question, "none", 1.0).text == said


@pytest.mark.parametrize("method", ["none", "omnidrop"])
@pytest.mark.parametrize(
    ("clip", "question", "answer"),
    [
        ("hello", "Which coloured shape is shown while you hear the voice?", "yellow star"),
        ("hello", "What does the voice say?", "hello"),
        ("hello", "Is a yellow star shown?", "yes"),
        ("tiger", "Which is heard first, the voice or the noise?", "voice"),
        ("tiger", "Which coloured shape is shown while you hear the voice?", "green heart"),
        ("tiger", "What happens, in order?", "green heart, voice says tiger; yellow diamond, noise"),
        ("river", "Which word is spoken?", "river"),
        ("river", "What is heard first?", "voice"),
        ("window", "Which digit is shown?", "7"),
        ("window", "What does the voice say?", "window"),
    ],
)
def test_it_answers_about_the_sample_media(nano, samples, clip, question, answer, method):
    retention = 0.3 if method == "omnidrop" else 1.0
    assert nano.ask(samples[clip], question, method, retention).text == answer


def answers(qa, clips, kinds, count=12):
    """Of open questions of these kinds about clips of the test set, the share that is answered right."""
    right = asked = 0
    for script in world.test_scripts(count, clips.seconds, clips.scenes):
        video = qa.encode(clips.source(str(script.seed), qa.pixels))
        for one in world.questions(script):
            if one.kind in kinds and one.options is None:
                right += qa.ask(video, one.prompt, "none", 1.0).text == one.answer
                asked += 1
    return right / asked


def test_it_looks_and_listens(nano):
    one_scene = NanoClips(seconds=4, scenes=1)
    seen, heard = ("seen", "shape"), ("heard", "heard_while_seen", "word")
    assert answers(nano, one_scene, seen) > 0.8
    assert answers(nano, one_scene, heard) > 0.8
    assert answers(nano, replace(one_scene, blind="video"), seen) < 0.4
    assert answers(nano, replace(one_scene, blind="audio"), heard) < 0.4


def run(*arguments):
    command = [sys.executable, "-m", "omniqa", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


def test_the_command_line_says_what_it_is_unless_quiet():
    clip = str(SAMPLES / "hello.mp4")
    loud, quiet = (run("ask", clip, "Which word is spoken?", "--model", "nano", *flag) for flag in ((), ("-q",)))
    assert "knows its own world" in loud.stderr
    assert "knows its own world" not in loud.stdout
    assert quiet.stderr == ""
    assert loud.stdout == quiet.stdout
