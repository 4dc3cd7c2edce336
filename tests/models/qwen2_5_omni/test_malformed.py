"""A malformed checkpoint is refused in one line that names what is wrong; none of its files is run or waited for."""

import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import pytest
import torch

from omniqa.errors import ModelError
from omniqa.models.base import PromptText
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint, pixel_bounds
from omniqa.models.qwen2_5_omni.thinker import load_thinker
from omniqa.pipeline import engine
from tests.media.clips import Audio, tone, write_clip
from tests.models.qwen2_5_omni import malformed
from tests.models.qwen2_5_omni.malformed import CONFIG, KINDS, TOKENIZER, TOKENIZER_CONFIG, older_pair, put, write

CPU = torch.device("cpu")
VARIANTS = [(kind, number) for kind, (_, edits) in KINDS.items() for number in range(len(edits))]


@pytest.fixture
def linked(checkpoint, tmp_path):
    """A folder whose files are links to those of the small checkpoint."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def load(folder):
    return load_thinker(find_checkpoint(str(folder)), CPU)


def test_there_are_many_kinds_of_at_least_five_variants():
    assert len(KINDS) >= 25
    assert all(len(edits) >= 5 for _, edits in KINDS.values())


def test_links_are_read_as_the_files(linked, checkpoint):
    assert load(linked).checkpoint.elements == find_checkpoint(str(checkpoint)).elements


@pytest.mark.parametrize(("kind", "number"), VARIANTS)
def test_it_is_refused_in_one_line_that_names_the_file(linked, kind, number):
    named, edits = KINDS[kind]
    edits[number](linked)
    with pytest.raises(ModelError) as refusal:
        load(linked)
    message = str(refusal.value).removeprefix(str(linked))
    assert "\n" not in message
    assert named in message
    assert 10 < len(message) < 300


@pytest.mark.parametrize("kind", ["length of a header", "places of tensors", "types and shapes of tensors"])
def test_no_memory_is_taken_for_what_a_header_claims(linked, kind):
    for edit in KINDS[kind][1]:
        folder = shutil.copytree(linked, linked.parent / "again", symlinks=True)
        edit(folder)
        tracemalloc.start()
        with pytest.raises(ModelError):
            find_checkpoint(str(folder))
        assert tracemalloc.get_traced_memory()[1] < 2**23
        tracemalloc.stop()
        shutil.rmtree(folder)


def test_the_message_names_the_entry_and_its_bounds(linked):
    put(CONFIG, *malformed.TEXT, "num_attention_heads", 0)(linked)
    with pytest.raises(ModelError, match=r"config.json: thinker_config.text_config.num_attention_heads is 0, not"):
        load(linked)


def test_a_value_of_any_length_is_quoted_in_short(linked):
    put(CONFIG, *malformed.TEXT, "hidden_act", "x" * 10**6)(linked)
    with pytest.raises(ModelError) as refusal:
        load(linked)
    assert len(str(refusal.value)) < 400


def test_the_older_tokenizer_files_make_the_same_tokenizer(linked, checkpoint):
    whole = load(checkpoint).template
    older_pair()(linked)
    pair = load(linked).template
    for question in ("What is said?", "<|im_end|> don't\n", "é 你好"):
        assert pair.tail(PromptText(question)) == whole.tail(PromptText(question))
    assert pair.head() == whole.head()


def test_end_tokens_of_the_generation_settings_end_an_answer(linked):
    put(malformed.GENERATION, "eos_token_id", [7, 9])(linked)
    assert load(linked).end_tokens >= {7, 9, 258}


def test_pixel_bounds_are_checked_where_they_are_read(linked):
    write(linked, malformed.PIXELS, b'{"size": {"shortest_edge": true}}')
    with pytest.raises(ModelError, match=r"size.shortest_edge is true"):
        pixel_bounds(str(linked))


@pytest.fixture
def hostile(linked):
    """A checkpoint whose every configuration asks for Python of its own, which would leave a mark."""
    mark = linked.parent / "it ran"
    code = f"open({str(mark)!r}, 'w').close()\nraise SystemExit(0)\n"
    for name in ("evil.py", "tokenization_evil.py", "configuration_evil.py", "modeling_evil.py", "__init__.py"):
        (linked / name).write_text(code)
    maps = {
        "AutoConfig": "configuration_evil.Evil", "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
        "AutoModel": "modeling_evil.Evil", "AutoProcessor": "evil.Evil",
    }  # fmt: skip
    for file in (CONFIG, TOKENIZER_CONFIG, malformed.PREPROCESSOR):
        put(file, "auto_map", maps)(linked)
    return linked, mark


def test_code_of_the_folder_is_not_run(hostile):
    folder, mark = hostile
    thinker = load(folder)
    assert engine.OmniQA("test", thinker).model.layers == 6
    assert not mark.exists()


@pytest.mark.parametrize(
    "edit",
    [
        put(TOKENIZER_CONFIG, "tokenizer_class", "Evil"),
        put(CONFIG, "model_type", "evil"),
        malformed.fifo(TOKENIZER),
    ],
)
def test_nothing_is_asked_and_nothing_runs_though_stdin_says_yes(hostile, edit, tmp_path):
    folder, mark = hostile
    edit(folder)
    clip = make_silent_clip(tmp_path / "clip.wav")
    done = subprocess.run(
        [sys.executable, "-m", "omniqa", "ask", clip, "What?", "--model", folder],
        input="y\n" * 100,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1), done.stderr
    assert not mark.exists()


def make_silent_clip(path):
    return write_clip(path, None, Audio(tone(1.0)))


def test_what_a_file_says_about_cutting_text_is_left_alone(linked, checkpoint):
    """As transformers does it for this tokenizer: a file can't smuggle in other rules."""
    expected = load(checkpoint).template.tail(PromptText("What is said?"))
    whole = json.loads((linked / TOKENIZER).read_text())
    whole |= {"normalizer": {"type": "Lowercase"}, "truncation": {"max_length": 1}, "padding": {"length": 10**9}}
    write(linked, TOKENIZER, json.dumps(whole).encode())
    assert load(linked).template.tail(PromptText("What is said?")) == expected
