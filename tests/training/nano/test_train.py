"""What nano is trained on is what `ask` gives it, and the training goes on where it was ended."""

import json
import sys
import unicodedata
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import omniqa
from omniqa.errors import UsageError
from omniqa.media.clip import Clip, sample
from omniqa.media.probe import probe
from omniqa.models.base import AUDIO, TEXT
from omniqa.models.qwen2_5_omni.template import ChatTemplate
from omniqa.nano import world
from omniqa.nano.architecture import NanoConfig, save, untrained
from omniqa.nano.clips import write_clip
from omniqa.nano.tokenizer import SPECIAL_TOKENS, make_tokenizer
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from tests import reference_model as reference
from training.nano.batches import CLIP, PADDING, SAMPLING, BatchSpec, collate, make_batch, pick, produce, rendered
from training.nano.blocks import BlockModel, score, visible_to_text
from training.nano.gradient_workers import Step, gradients_from_workers, gradients_here
from training.nano.naming import TokenLabeler, looked_past, make_named
from training.nano.sift import SelectorTraining
from training.nano.train import Progress, Settings, Training, train
from training.nano.truth import HEARD, SEEN

SMALL = NanoConfig(layers=5, heads=2, mlp=128, encoder_layers=2, encoder_width=64, encoder_mlp=64)
SPEC = BatchSpec(world.FIRST_TRAINING_SEED, clips=2, seconds=3, scenes=1, size=112, blocks=4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def template(tokenizer):
    return ChatTemplate.of(tokenizer)


@pytest.fixture(scope="module")
def thinker(tokenizer):
    return untrained(SMALL, tokenizer, CPU)


@pytest.fixture
def fresh(tokenizer):
    return untrained(SMALL, tokenizer, CPU)


@pytest.fixture(scope="module")
def folder(thinker, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("nano")
    save(thinker.module, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", world.draw(3, 5, 2), 140)


def sampled(media, script, tmp_path):
    """The same clip as the engine takes it."""
    info = probe(write_clip(tmp_path / "any.mp4", script, 112))
    times = tuple(t + k * (t - t + 1) / 2 for t in media.shape.grid_times for k in range(2))
    return Clip(info, times[0], times[-1], media.frames, times, world.waveform(script))


def first_logits(qa, clip, question):
    return qa.prefiller.prefill(qa.encode(clip), question, registry.create("none", 1.0)).result.logits


@given(st.text())
@settings(max_examples=200)
def test_any_text_comes_back_from_its_tokens(text):
    tokenizer = TOKENIZER
    ids = ChatTemplate.of(tokenizer).encode(text, False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)
    assert not {tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS} & set(ids)


TOKENIZER = make_tokenizer()


def test_it_is_the_same_tokenizer_every_time_and_the_worlds_words_are_short(tokenizer, template):
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert len(template.encode(" red circle and green star, voice says banana", False)) == 9


def test_the_full_size_is_as_deep_as_it_should_be(tokenizer):
    module = untrained(NanoConfig(), tokenizer, CPU).module
    assert 6e6 <= sum(weight.numel() for weight in module.parameters()) <= 8e6
    assert NanoConfig().layers >= 14


def test_the_checkpoint_gives_the_same_logits_in_omniqa_and_transformers(folder, mp4):
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    processor = reference.make_processor(folder)
    module = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder)
    clip = sample(mp4, SAMPLING)
    # transformers' processor has its own bounds, so the picture is taken at the size that they give.
    qa = omniqa.load(str(folder), device="cpu")
    large = sample(mp4)
    batch = reference.inputs(processor, large.frames, large.waveform, "What is heard?")
    with torch.inference_mode():
        expected = module.eval()(**batch).logits[0, -1]
    assert clip.frames.shape[1:3] == (140, 140)
    assert (first_logits(qa, large, "What is heard?") - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(("size", "seconds"), [(112, 3), (168, 4.5)])
def test_a_block_is_what_ask_gives_the_model(thinker, template, tmp_path, size, seconds):
    """Every block's first answer token gets the logits of the package's own prefill of that question."""
    scripts = [world.draw(seed, seconds, 2) for seed in (5, 6)]
    media = [rendered(script, size) for script in scripts]
    asked = [pick(script, 4, Random(0)) for script in scripts]
    batch = collate(template, scripts, media, asked)
    with torch.no_grad():
        logits = BlockModel(thinker).logits(batch)
    qa = OmniQA("nano", thinker, "sdpa")
    where = batch.learned.nonzero()
    for number, (script, questions) in enumerate(zip(scripts, asked, strict=True)):
        clip = sampled(media[number], script, tmp_path)
        for block, one in enumerate(questions, start=1):
            if one.judged:  # its first answer token is not learned
                continue
            mine = (where[:, 0] == number) & (batch.block[batch.learned] == block)
            assert (logits[mine][0] - first_logits(qa, clip, one.prompt)).abs().max() <= 1e-3


def test_a_clip_from_a_file_is_what_ask_reads(thinker, template, tmp_path):
    script = world.draw(world.FIRST_TRAINING_SEED, 3, 1)
    batch = make_batch(replace(SPEC, clips=1, mp4_share=1.0, blocks=1), template)
    with torch.no_grad():
        logits = BlockModel(thinker).logits(batch)
    clip = sample(write_clip(tmp_path / "clip.mp4", script, 112), SAMPLING)
    question = prompt_of(batch, template)
    qa = OmniQA("nano", thinker, "sdpa")
    assert (logits[0] - first_logits(qa, clip, question)).abs().max() <= 1e-3


def prompt_of(batch, template):
    ids = batch.ids[0][(batch.block[0] == 1) & ~batch.learned[0]].tolist()
    return TOKENIZER.decode(ids[: ids.index(template.special.im_end)])


def test_only_answers_and_their_ends_are_learned(template):
    batch = make_batch(SPEC, template)
    asked = pick(world.draw(SPEC.seed, 3, 1), 4, Random(f"questions {SPEC}"))
    assert batch.kinds[0][0] == "description"
    assert len(asked) == len(batch.kinds[0]) == int(batch.block[0].max())
    for row, kinds in enumerate(batch.kinds):
        for block, kind in enumerate(kinds, start=1):
            if kind == "check":  # see the next test
                continue
            said = batch.ids[row][batch.learned[row] & (batch.block[row] == block)].tolist()
            assert said[-1] == template.special.im_end
            assert said.count(template.special.im_end) == 1
    described = batch.ids[0][batch.learned[0] & (batch.block[0] == 1)].tolist()[:-1]
    assert TOKENIZER.decode(described) == world.description(world.draw(SPEC.seed, 3, 1))


def test_of_checklists_only_the_verdicts_are_learned(template):
    script = world.draw(SPEC.seed, 3, 1)
    batch = make_batch(SPEC, template)
    heard, shown = (one for one in pick(script, 4, Random(f"questions {SPEC}")) if one.judged)
    there = {sound.kind for sound in script.sounds} | {sound.word for sound in script.sounds}
    for item in heard.answer.split(","):
        name, verdict = item.split()
        assert (verdict == "yes") == (name in there)
    assert all(f" {thing.label} yes" in shown.answer for thing in script.scenes[0].things)
    first = [template.encode(f" {word}", False)[0] for word in ("no", "yes")]
    for block, one in ((2, heard), (3, shown)):
        learned = batch.ids[0][batch.learned[0] & (batch.block[0] == block)].tolist()
        assert learned == [first[item.endswith("yes")] for item in one.answer.split(",")]


def test_lists_tell_what_is_shown_by_shape_and_by_sound():
    script = next(
        one
        for one in world.training_scripts(seconds=8, scenes=2)
        if all(len(scene.things) == 2 for scene in one.scenes) and len({sound.kind for sound in one.sounds}) == 2
    )
    by_shape, by_sound = (one.answer for one in pick(script, 4, Random(0)) if one.kind == "list")
    for listed, scene in zip(by_shape.split("; "), script.scenes, strict=True):
        things = sorted((thing.shape, thing.colour, thing.motion) for thing in scene.things)
        assert sorted(tuple(one.split()) for one in listed.split(" and ")) == things
    for one in by_sound.split(", "):
        sound, things = one.split(" ", 1)
        scene = next(
            s for s in script.scenes if all(s.start <= e.start < s.end for e in script.sounds if e.kind == sound)
        )
        assert things == " and ".join(thing.label for thing in scene.things)


def test_options_are_judged_at_the_ends_of_their_lines(template):
    batch = make_batch(replace(SPEC, blocks=12), template)
    no, yes = (template.encode(f" {word}", False)[0] for word in ("no", "yes"))
    with_options = 0
    for row, kinds in enumerate(batch.kinds):
        for block in range(1, len(kinds) + 1):
            mine = batch.block[row] == block
            ids, verdicts = batch.ids[row][mine].tolist(), batch.verdict[row][mine].tolist()
            text = TOKENIZER.decode(ids)
            ends = [TOKENIZER.decode(ids[: place + 1]) for place, verdict in enumerate(verdicts) if verdict >= 0]
            said = [verdict for verdict in verdicts if verdict >= 0]
            if "Answer with the letter." not in text:
                assert not ends
                continue
            with_options += 1
            assert [end.split("\n")[-2][:2] for end in ends] == ["A.", "B.", "C.", "D."]
            assert all(end.endswith("\n") for end in ends)
            assert "ABCD"[said.index(yes)] == TOKENIZER.decode(ids[-2:-1])
            assert said.count(no) == 3
    assert with_options


def test_audio_tokens_are_told_what_is_shown_then(fresh, template):
    batch = make_batch(replace(SPEC, seconds=4, scenes=2), template)
    start = 0
    for number, media in enumerate(batch.media):
        script = world.draw(SPEC.seed + number, 4, 2)
        for token in range(media.shape.audio_tokens):
            scene = next(scene for scene in script.scenes if scene.end > (token + 0.5) / 25)
            now = {SEEN[name] for name in batch.shown[start + token].nonzero()[:, 0].tolist()}
            assert now == {word for names in names_of(scene) for word in names}
        start += media.shape.audio_tokens
    labeler = TokenLabeler(BlockModel(fresh))
    loss, plain = labeler.answers_loss(batch, None), labeler.model.loss(batch)
    assert loss > plain
    assert labeler.answers_loss(replace(batch, shown=1 - batch.shown), None) > loss


def test_questions_are_told_where_to_look(fresh, template):
    spec = replace(SPEC, clips=1, seconds=6, scenes=2, blocks=12)
    batch = make_batch(spec, template)
    evidence = [one.evidence for one in pick(world.draw(SPEC.seed, 6, 2), 12, Random(f"questions {spec}"))]
    assert list(batch.evidence[0]) == evidence
    model, layer = BlockModel(fresh), 2
    with torch.no_grad():
        looks = model.looks(list(model.states(batch))[layer - 1], batch, layer)
    assert looks.shape == (1, SMALL.heads, batch.ids.shape[1] - batch.clip_tokens, batch.clip_tokens)
    assert torch.allclose(looks.exp().sum(-1), torch.ones(()))
    clip, text = batch.modality[0, : batch.clip_tokens], batch.block[0, batch.clip_tokens :].tolist()
    assert not looks[..., clip == TEXT].exp().any()
    begins, inside = batch.time_s[0, : batch.clip_tokens], torch.full_like(looks, -torch.inf)
    for row, block in enumerate(text):
        for start, end in evidence[block - 1] if block > 0 else ():
            inside[0, :, row, (clip != TEXT) & (begins >= start) & (begins < end)] = 0.0
    assert looked_past(inside.log_softmax(-1), batch) == pytest.approx(0.0, abs=1e-5)
    assert looked_past(looks, batch) > 0.3


def test_blocks_do_not_see_each_other(thinker, template):
    batch = make_batch(SPEC, template)
    second = (batch.block == 2) & ~batch.learned
    other = replace(batch, ids=torch.where(second, batch.ids.flip(1) % 200, batch.ids))
    with torch.no_grad():
        before, after = (BlockModel(thinker).logits(one) for one in (batch, other))
    changed = (before - after).abs().amax(-1) > 0
    assert set(batch.block[batch.learned][changed].tolist()) == {2}


def test_text_sees_the_clip_and_its_own_block_up_to_itself(template):
    batch = make_batch(replace(SPEC, blocks=6), template)
    sees, clip, width = visible_to_text(batch), batch.clip_tokens, batch.chunk
    block = batch.block[:, clip:]
    for row, text in (block > 0).nonzero().tolist():
        chunk, place = divmod(text, width)
        seen = sees[row, chunk, place]
        assert torch.equal(seen[:clip], batch.block[row, :clip] == CLIP)
        own = [(chunk - 1) * width + key for key in seen[clip:].nonzero()[:, 0].tolist()]
        assert own == [key for key in range(text + 1) if block[row, key] == block[row, text]]


def test_text_sees_the_clip_in_the_layers_where_it_shall(thinker, template):
    batch = make_batch(SPEC, template)
    frames = replace(batch.media[0], frames=255 - batch.media[0].frames)
    mel = replace(frames, mel=np.ascontiguousarray(frames.mel[::-1]))
    other = replace(batch, media=(mel, *batch.media[1:]))
    with torch.no_grad():
        model = BlockModel(thinker)
        nowhere, early, late = range(0), range(3), range(3, SMALL.layers)
        torch.testing.assert_close(model.logits(batch, nowhere), model.logits(other, nowhere))
        for somewhere in (early, late):
            assert not torch.allclose(model.logits(batch, somewhere), model.logits(other, somewhere))
            assert not torch.allclose(model.logits(batch, somewhere), model.logits(batch))
        torch.testing.assert_close(model.logits(batch, range(SMALL.layers)), model.logits(batch))
    assert (batch.modality[batch.learned] == TEXT).all()


def test_one_batch_is_learned_by_heart_and_then_answered_so(fresh, template, tmp_path):
    spec = replace(SPEC, clips=1, seconds=2, blocks=3)
    batch = make_batch(spec, template)
    model = BlockModel(fresh)
    optimizer = torch.optim.AdamW(fresh.module.parameters(), 2e-3)
    tokens = int(batch.learned.sum())
    first = float(model.loss(batch).detach()) / tokens
    for _ in range(50):
        loss = model.loss(batch) / tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fresh.module.parameters(), 1.0)
        optimizer.step()
    assert float(loss.detach()) < 0.1 < 1 < first
    assert all(right == asked for right, asked in score(model, [batch]).values())
    idle = {name for name, weight in fresh.module.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert {name.split(".")[-2] for name in idle} == {"audio_bos_eos_token"}  # transformers has it and never uses it

    script = world.draw(spec.seed, 2, 1)
    clip = sampled(batch.media[0], script, tmp_path)
    for one in (one for one in pick(script, 3, Random(f"questions {spec}")) if not one.judged):
        answer = OmniQA("nano", fresh, "sdpa").ask(clip, one.prompt, "none")
        assert answer.text == one.answer


def test_encoders_learn_names(fresh):
    named = make_named(replace(SPEC, seconds=2, blocks=0))
    labeler = TokenLabeler(BlockModel(fresh))
    optimizer = torch.optim.AdamW(fresh.module.parameters(), 3e-3)
    before = float(labeler.loss(named).detach())
    for _ in range(80):
        optimizer.zero_grad()
        labeler.loss(named).backward()
        optimizer.step()
    assert float(labeler.loss(named).detach()) < 0.1 * before
    assert min(labeler.right(named)) > 0.9


def names_of(scene):
    things = [{thing.colour, thing.shape, thing.motion} for thing in scene.things]
    return things + ([{scene.sign.text}] if scene.sign else [])


def test_names_are_those_of_the_moment():
    script = next(s for s in world.training_scripts(seconds=4, scenes=2) if s.scenes[0].sign and s.sounds)
    named = make_named(replace(SPEC, seed=script.seed, seconds=4, scenes=2, clips=1, blocks=0))
    shown = [{SEEN[name] for name in row.nonzero()[:, 0].tolist()} for row in named.seen[0]]
    assert set().union(*shown) == {word for name in names_of(script.scenes[0]) for word in name}
    assert all(any(name <= here for here in shown) for name in names_of(script.scenes[0]))
    for token, row in enumerate(named.heard):
        heard = {HEARD[name] for name in row.nonzero()[:, 0].tolist()}
        now = [s for s in script.sounds if s.start < (token + 1) / 25 and s.end >= token / 25]
        assert heard == {name for sound in now for name in (sound.kind, sound.word) if name}


def test_batches_made_in_the_background_are_the_same(tokenizer):
    specs = [replace(SPEC, seed=SPEC.seed + number) for number in range(3)]
    here, there = (list(produce(iter(specs), make_batch, tokenizer, workers)) for workers in (0, 1))
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.ids, theirs.ids)
        assert all(np.array_equal(a.frames, b.frames) for a, b in zip(mine.media, theirs.media, strict=True))


def test_gradients_from_several_processes_are_those_of_one(tokenizer, monkeypatch):
    # A new process takes over sys.path, but not what makes the torchvision beside the environment importable.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "torchvision" not in path])
    specs = tuple(replace(SPEC, seed=SPEC.seed + number, clips=1) for number in range(3))
    steps = [Step(specs, None), Step(specs[:1], range(3))]
    alone, beside = (untrained(SMALL, tokenizer, CPU) for _ in range(2))
    here = gradients_here(iter(steps), BlockModel(alone), workers=0)
    there = gradients_from_workers(iter(steps), beside.module, SMALL, bf16=False, workers=2)
    for mine, theirs in zip(here, there, strict=True):
        assert theirs == replace(mine, loss=pytest.approx(mine.loss, rel=1e-5))
        for a, b in zip(alone.module.parameters(), beside.module.parameters(), strict=True):
            assert torch.allclose(torch.zeros_like(a) if a.grad is None else a.grad, b.grad, rtol=1e-3, atol=1e-4)


def test_a_selector_learns_what_audio_answers_need_and_the_model_stays_as_it_is(fresh, tokenizer, template, tmp_path):
    save(fresh.module, tokenizer, tmp_path)
    before = {name: weight.clone() for name, weight in fresh.module.named_parameters()}
    training = SelectorTraining(BlockModel(fresh))
    batch = make_batch(replace(SPEC, clips=1, seconds=4.5), template)
    training.loss(batch, 0.4, 0.5).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in training.selector.parameters())
    training.step(0, 1.0)
    assert all(torch.equal(before[name], weight) for name, weight in fresh.module.named_parameters())
    training.save(tmp_path)
    clip = Clip.from_arrays(world.frames(world.draw(1, 4, 2)), waveform=world.waveform(world.draw(1, 4, 2)))
    answer = omniqa.load(str(tmp_path), "cpu").ask(clip, "What is heard?", "omnisift", 0.5)
    assert answer.retention.achieved == pytest.approx(0.5, abs=0.01)


def test_what_a_selector_drops_is_gone(fresh, template):
    """The loss without tokens is that of the sequence without them, not of zeros in their place."""
    training = SelectorTraining(BlockModel(fresh))
    batch = make_batch(replace(SPEC, clips=1), template)
    dropped = batch.modality[0] == AUDIO
    block = torch.where(dropped, PADDING, batch.block)
    other = training.model.embed(batch) + 10.0 * dropped[None, :, None]
    with torch.no_grad():
        one, two = (training.model.loss(replace(batch, block=block), embedded=x) for x in (None, other))
    assert torch.allclose(one, two)


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    few = Settings(hours=1, workers=0, mp4_share=0.0)
    whole = Training(tmp_path / "whole", few, CPU, SMALL)
    whole.run(max_steps=3)
    half = Training(tmp_path / "half", few, CPU, SMALL)
    half.run(max_steps=2)
    half.state.with_suffix(".new").write_bytes(b"half writ")  # killed while it saved
    again = Training(tmp_path / "half", few, CPU, SMALL)
    again.resume()
    assert again.progress == Progress(2, half.progress.seconds, 0)
    again.run(max_steps=3)
    assert again.progress.step == 3
    for mine, theirs in zip(
        whole.model.thinker.module.parameters(), again.model.thinker.module.parameters(), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert first_logits(omniqa.load(str(tmp_path / "half"), "cpu"), *question()).isfinite().all()


def question():
    return Clip.from_arrays(waveform=world.waveform(world.draw(1, 2, 1))), "What is heard?"


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        train(tmp_path, Settings(hours=1), CPU, resume=True)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "state.pt").touch()
    with pytest.raises(UsageError, match="holds a run already"):
        train(tmp_path, Settings(hours=1), CPU)


def test_the_log_tells_what_is_right_by_kind_and_the_next_stage_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("training.nano.train.TEST_CLIPS", 4)
    run = Training(tmp_path, Settings(hours=1, workers=0), CPU, SMALL)
    for seconds, stage in ((0.0, 0), (1200.0, 1), (1200.0, 2)):  # later than either may end
        run.progress.seconds = seconds
        run.test()
        assert run.progress.stage == stage
    *named, asked = [json.loads(line) for line in (tmp_path / "training" / "log.jsonl").read_text().splitlines()]
    assert {"step", "seconds", "stage", "seen", "heard"} <= set(named[0])
    assert asked["accuracy"]["description"] == [0.0, 4]
    assert {"step", "seconds", "stage", "right"} <= set(asked)
