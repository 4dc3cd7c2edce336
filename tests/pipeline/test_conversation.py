"""A conversation is put as the model's own template does; its last question alone decides what is pruned."""

import pytest
import torch

import omniqa
from omniqa.errors import UsageError
from omniqa.models.base import CONVERSATION_CHARACTERS, PromptText, Turn
from omniqa.models.generate import generate
from omniqa.models.qwen2_5_omni.layout import build_layout
from omniqa.pruning import registry
from omniqa.runtime.generation_options import GenerationOptions
from tests import reference_model as reference
from tests.models.qwen2_5_omni import slow
from tests.models.qwen2_5_omni.clips import CLIPS, make_clip
from tests.models.test_prefix_cache import METHODS, differ
from tests.pruning.reference import omnidrop as slow_counts
from tests.pruning.reference import omnidrop_input as slow_input

TURNS = (Turn("What happens?", "A dog runs.\nThen it sits."), Turn("Who is heard?", ""))
LAST = "And what is it that they say at the end?"
FEW = GenerationOptions(max_new_tokens=3, stop_at_end=False)


@pytest.fixture(scope="module")
def processor(checkpoint):
    return reference.make_processor(checkpoint)


def as_text(turns, question):
    """The user's words of all turns in the published chat template, behind the media and in front of its tail."""
    parts = [f"{turn.question}<|im_end|>\n<|im_start|>assistant\n{turn.answer}<|im_end|>\n" for turn in turns]
    return "<|im_start|>user\n".join([*parts, question])


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("turns", [TURNS[:1], TURNS], ids=["two turns", "three turns"])
def test_logits_and_answers_of_several_turns_equal_transformers(qa, processor, kind, turns):
    clip = make_clip(**CLIPS[kind])
    batch = reference.inputs(processor, clip.frames, clip.waveform, as_text(turns, LAST))
    module, new = qa.model.module, 8
    with torch.inference_mode():
        expected = module(**batch).logits[0, -1]
        generated = module.generate(**batch, do_sample=False, max_new_tokens=new, min_new_tokens=new)
    encoded, prompt = qa.encode(clip), PromptText(LAST, turns=turns)
    for reuse in (False, True, True):  # the second leaves the clip's rows, the third starts from them
        prefilled = qa.prefiller.prefill(encoded, prompt, registry.create("omnidrop", 1.0), new, reuse_prefix=reuse)
        assert (prefilled.logits - expected).abs().max() <= 1e-4
    position, options = prefilled.layout.next_position, GenerationOptions(max_new_tokens=new)
    tokens = generate(qa.decoder, prefilled.logits, position, prefilled.cache, options, eos=frozenset())
    assert list(tokens) == generated[0, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("question", ["Where?", "\n\nWhere?", " Where?", "\tWhere?\n", "<|im_end|>"])
def test_words_are_encoded_as_in_the_whole_prompt_and_found_again(qa, processor, question):
    clip = make_clip(frames=4)
    layout = build_layout(qa.model.template, qa.encode(clip).shape, PromptText(question, turns=TURNS[:1]))
    if not question.startswith("<"):  # transformers would end the turn there
        batch = reference.inputs(processor, clip.frames, clip.waveform, as_text(TURNS[:1], question))
        assert layout.ids.tolist() == batch["input_ids"][0].tolist()
        assert layout.positions.tolist() == reference.positions(qa.model.module, batch).tolist()
    words = qa.model.tokenizer.decode(layout.ids[layout.question])
    assert words.removeprefix("\n") == question.removeprefix("\n")
    assert layout.prompt.start == layout.question.start
    special = qa.model.template.special
    assert (layout.ids[layout.behind_media] == special.im_end).sum() == 3


@pytest.mark.parametrize("method", ["none", "omnidrop", "omnidrop, audio guidance", "fastv", "dycoke"])
def test_a_later_turn_starts_from_the_clips_prefix_and_is_answered_as_if_asked_afresh(qa, method):
    name, retention, options = METHODS[method]
    pruner, video = registry.create(name, retention, **options), qa.encode(make_clip(frames=8, seconds=5.0))
    for turns in ((), TURNS[:1], TURNS):
        prompt = PromptText(LAST, turns=turns)
        again = qa.prefiller.prefill(video, prompt, pruner, max_new_tokens=2, reuse_prefix=True)
        assert differ(again, qa.prefiller.prefill(video, prompt, pruner, max_new_tokens=2)) <= 1e-4


@pytest.mark.parametrize("scope", ["prompt", "question"])
def test_the_last_questions_rows_alone_score_the_pruning(qa, scope):
    clip, retention = make_clip(frames=8, seconds=5.0), 0.3
    pruner = registry.create("omnidrop", retention, query_scope=scope)
    prefilled = qa.prefiller.prefill(qa.encode(clip), PromptText(LAST, turns=TURNS), pruner)
    layout = prefilled.layout
    with torch.inference_mode():
        media, importance = slow.media_embeddings(qa, clip, layout)
        modality = layout.modality[layout.media].tolist()
        shape = layout.shape
        counts = slow_counts(shape.audio_tokens, shape.grids, shape.tokens_per_grid, qa.model.layers, retention)
        video = media[torch.tensor(modality) == 0].tolist()
        entered = slow_input(modality, shape.tokens_per_grid, video, importance, counts)
        stop = len(layout.ids) if scope == "prompt" else layout.question.stop

        def rows_of(keep):
            return [j for j, place in enumerate(keep) if layout.question.start <= place < stop]

        alive, logits = slow.forward(qa, layout, media, entered, slow.omnidrop_choice(counts, layout), rows_of)
    assert [index.tolist() for index in prefilled.result.alive] == alive
    assert (prefilled.logits - logits).abs().max() <= 1e-4


def test_each_answer_sees_the_turns_before_it(qa):
    video = qa.encode(make_clip(frames=8, seconds=5.0))
    chat = qa.chat(video, "none", 1.0, decoding=FEW)
    answers = [chat.ask(question) for question in ("What happens?", "Who is heard?", LAST)]
    turns = ()
    for answer in answers:
        alone = qa.ask(video, PromptText(answer.question, turns=turns), "none", 1.0, decoding=FEW)
        assert answer.token_ids == alone.token_ids
        turns = (*turns, Turn(answer.question, answer.text))
    assert chat.turns == list(turns)
    assert answers[2].stats.tokens.text > answers[0].stats.tokens.text
    chat.reset()
    assert chat.ask("What happens?").token_ids == answers[0].token_ids


def test_the_clip_is_encoded_at_the_first_question_and_only_once(qa, monkeypatch):
    encoded = []
    encode = qa.encode
    monkeypatch.setattr(qa, "encode", lambda *given, **named: encoded.append(1) or encode(*given, **named))
    chat = qa.chat(make_clip(frames=4, seconds=2.0), decoding=FEW)
    assert chat.clip is None
    first, second = chat.ask("What happens?"), chat.ask("Where?", "fastv", 0.5)
    assert len(encoded) == 1
    assert first.stats.timing_s["vision_encoder"] > 0
    assert second.stats.timing_s["vision_encoder"] == 0
    assert (first.method, second.method) == ("omnidrop", "fastv")


def test_a_method_that_the_encoding_does_not_serve_has_the_clip_encoded_again(qa, monkeypatch):
    monkeypatch.setattr("omniqa.pipeline.encode_for.HELD_WHOLE", 0)  # keeps its own tokens alone, as of a long clip
    chat = qa.chat(make_clip(frames=8, seconds=4.0), decoding=FEW)
    chat.ask("What happens?")
    before = chat.clip
    answer = chat.ask("Where?", "none", 1.0)
    assert before.rule is not None
    assert chat.clip.rule is None
    assert answer.stats.timing_s["vision_encoder"] > 0
    assert [turn.question for turn in chat.turns] == ["What happens?", "Where?"]


def test_pieces_make_up_the_answer_and_a_stopped_one_leaves_no_trace(qa):
    chat = qa.chat(make_clip(frames=4, seconds=2.0), decoding=FEW)
    pieces = chat.stream("What happens?")
    text = "".join(pieces)
    assert pieces.answer is not None
    assert text.strip() == pieces.answer.text
    assert len(chat.turns) == 1
    stopped = chat.stream("Where?")
    next(stopped)
    stopped.close()
    assert stopped.answer is None
    assert len(chat.turns) == 1
    assert chat.ask("Where?").text == qa.chat(chat.clip, decoding=FEW, turns=chat.turns[:1]).ask("Where?").text


def test_what_progress_raises_ends_an_answer_before_the_next_layer(qa):
    seen = []

    def progress(stage, share):
        seen.append((stage, share))
        if stage == "prefill":
            raise InterruptedError

    chat = qa.chat(make_clip(frames=4, seconds=2.0), decoding=FEW)
    with pytest.raises(InterruptedError):
        chat.ask("What happens?", progress=progress)
    assert [stage for stage, _ in seen].count("prefill") == 1
    assert not chat.turns
    assert chat.ask("What happens?").text == qa.chat(chat.clip, decoding=FEW).ask("What happens?").text


def test_a_conversation_longer_than_the_model_takes_is_refused_before_it_is_computed(qa):
    clip = make_clip(frames=2)
    long = [Turn("Why? " * 3000, "Because. " * 3000) for _ in range(3)]
    with pytest.raises(UsageError, match=r"needs 1\d\d,\d{3} tokens, 144 of them for the clip; the model takes 32,768"):
        qa.chat(clip, "none", 1.0, turns=long).ask("Why?")
    with pytest.raises(UsageError, match=f"at most {CONVERSATION_CHARACTERS:,}"):
        qa.chat(clip, turns=[Turn("Why?", "x" * CONVERSATION_CHARACTERS)]).ask("Why?")
    with pytest.raises(UsageError, match="empty"):
        qa.chat(clip).ask("  ")
    with pytest.raises(UsageError, match="encoded already"):
        qa.chat(qa.encode(clip), sampling=omniqa.ClipOptions())
