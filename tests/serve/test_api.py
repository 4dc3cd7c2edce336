"""The API, by OpenAI's own client and by curl: answers, streams, files, conversations, and errors by their types."""

import base64
import json
import operator
import shutil
import socket
import subprocess
import threading

import pytest

import omniqa
from omniqa.models.base import PromptText, Turn
from omniqa.pruning import registry
from omniqa.runtime.generation_options import GenerationOptions
from tests.serve.conftest import SMALL, chat, running, settings_for, until


@pytest.fixture(scope="module")
def client(server):
    openai = pytest.importorskip("openai", reason="needs the openai package")
    with openai.OpenAI(base_url=f"{server.base}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


def ask(client, url, *questions, **more):
    request = chat(url, *questions)
    return client.chat.completions.create(model="omniqa", messages=request["messages"], **more)


def test_an_answer_is_that_of_the_library(client, qa, media_root):
    completion = ask(client, "a.mp4", extra_body={"method": "fastv", "retention": 0.5})
    expected = qa.ask(
        str(media_root / "a.mp4"), "What happens?", "fastv", 0.5, sampling=SMALL,
        decoding=GenerationOptions(max_new_tokens=6),
    )  # fmt: skip
    assert completion.choices[0].message.content == expected.text
    assert completion.choices[0].finish_reason == "length"
    tokens = expected.stats.tokens
    assert completion.usage.prompt_tokens == tokens.text + tokens.audio + tokens.video
    assert completion.usage.completion_tokens == 6
    told = completion.model_extra["omniqa"]
    assert told["evidence"] == [pytest.approx(vars(chunk)) for chunk in expected.evidence]
    assert told["retention"]["target"] == 0.5
    assert told["timing_s"]["total"] > 0
    assert not {"load", "import"} & set(told["timing_s"])


def test_a_stream_makes_up_the_same_answer_and_ends_with_usage(client):
    whole = ask(client, "a.mp4").choices[0].message.content
    chunks = list(ask(client, "a.mp4", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == whole
    assert chunks[-1].usage.completion_tokens == 6
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-2].model_extra["omniqa"]["evidence"]


def test_earlier_turns_are_part_of_the_prompt(client, qa, media_root):
    completion = ask(client, "a.mp4", "What happens?", "And then?", extra_body={"method": "none"})
    prompt = PromptText("And then?", turns=(Turn("What happens?", "A dog."),))
    expected = qa.ask(
        str(media_root / "a.mp4"), prompt, "none", 1.0, sampling=SMALL, decoding=GenerationOptions(max_new_tokens=6)
    )
    assert completion.choices[0].message.content == expected.text
    assert completion.model_extra["omniqa"]["timing_s"]["vision_encoder"] == 0, "the clip is at hand"


def test_a_file_is_uploaded_asked_about_by_its_id_and_deleted(client, media_root):
    file = client.files.create(file=open(media_root / "a.mp4", "rb"), purpose="user_data")  # noqa: SIM115
    assert (file.filename, file.bytes) == ("a.mp4", (media_root / "a.mp4").stat().st_size)
    assert file.id in [one.id for one in client.files.list()]
    assert client.files.content(file.id).read() == (media_root / "a.mp4").read_bytes()
    answer = ask(client, file.id)
    assert answer.choices[0].message.content == ask(client, "a.mp4").choices[0].message.content
    assert answer.model_extra["omniqa"]["timing_s"]["vision_encoder"] == 0, "the same content was encoded before"
    assert client.files.delete(file.id).deleted
    import openai

    with pytest.raises(openai.NotFoundError, match="no file"):
        ask(client, file.id)


def test_a_data_url_and_a_sound_are_clips(client, media_root):
    content = base64.b64encode((media_root / "a.mp4").read_bytes()).decode()
    answer = ask(client, f"data:video/mp4;base64,{content}")
    assert answer.choices[0].message.content == ask(client, "a.mp4").choices[0].message.content
    sound = base64.b64encode((media_root / "inner" / "sound.mp3").read_bytes()).decode()
    parts = [
        {"type": "text", "text": "What is heard?"},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "mp3"}},
    ]
    completion = client.chat.completions.create(model="omniqa", messages=[{"role": "user", "content": parts}])
    tokens = completion.model_extra["omniqa"]["tokens"]
    assert (tokens["video"], tokens["audio"]) == (0, 50)


def test_clip_options_and_a_system_message_are_taken(client):
    told = ask(client, "inner/long.mp4", extra_body={"clip": {"start": 2, "end": 6, "audio": False}}).model_extra
    media = told["omniqa"]["media"]
    assert (media["duration_s"], media["frames"], media["audio_s"]) == (4, 8, 0)
    request = chat("a.mp4")
    system = {"role": "system", "content": "Say yes."}
    plain, other = (
        client.chat.completions.create(model="omniqa", messages=messages)
        for messages in (request["messages"], [system, *request["messages"]])
    )
    assert other.usage.prompt_tokens != plain.usage.prompt_tokens


def test_models_are_listed(client, server):
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id
    status, _, body = server.ask("GET", "/v1/models/gpt-4")
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
VIDEO = {"type": "video_url", "video_url": {"url": "a.mp4"}}
TEXT = {"type": "text", "text": "What?"}


def user(*parts):
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": [user(VIDEO, SOUND, TEXT)]}, "one clip"),
        ({"messages": [user(VIDEO, TEXT), {"role": "assistant", "content": "A."}, user(VIDEO, TEXT)]}, "first user"),
        ({"messages": [user(TEXT)]}, "no clip"),
        ({"messages": [user(VIDEO)]}, "empty"),
        ({"messages": []}, "no messages"),
        ({"messages": "What?"}, "messages must be a list"),
        ({"messages": [user(VIDEO, TEXT), user(TEXT)]}, "take turns"),
        ({"messages": [user(VIDEO, TEXT), {"role": "assistant", "content": "A."}]}, "must be the user's"),
        ({"messages": [user(VIDEO, TEXT, {"type": "image_url", "image_url": {"url": "a.png"}})]}, "image_url"),
        ({"messages": [user({"type": "video_url", "video_url": "a.mp4"}, TEXT)]}, "must be an object"),
        ({"method": "./mine.py:Mine"}, "There is no method"),
        ({"method": "omnidrop:tds=false"}, "There is no method"),
        ({"retention": 7}, "7"),
        ({"retention": True}, "must be a number"),
        ({"options": {"speed": 9}}, "speed"),
        ({"clip": {"max_frames": 9999}}, "at most 16"),
        ({"clip": {"max_pixels": 10**9}}, "at most"),
        ({"clip": {"frames": 3}}, "no field clip.frames"),
        ({"clip": {"start": 99}}, "a.mp4 is only 2 s long"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_tokens": 40_000}, "the model takes 32,768"),
        ({"max_tokens": 1.5}, "whole number"),
        ({"max_tokens": 10**400}, "must be a number"),
        ({"seed": 2**63}, "must be a number"),
        ({"clip": {"end": 10**400}}, "must be a number"),
        ({"method": "x" * 10_000}, "There is no method"),
        ({"options": {"tds": {"deep": [1]}}}, "must be a single value"),
        ({"temperature": -1}, "negative"),
        ({"n": 2}, "n is not served"),
        ({"stop": ["."]}, "stop is not served"),
        ({"tools": [{"type": "function"}]}, "tools is not served"),
        ({"retenton": 0.5}, "no field retenton"),
    ],
)
def test_what_makes_no_sense_is_400_and_one_sentence(server, change, said):
    status, body = server.chat("a.mp4", **change)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error"), body
    assert said in body["error"]["message"]
    assert len(body["error"]["message"]) < 1000
    assert "\n" not in body["error"]["message"]
    assert "/proc/" not in body["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"1e999", b'{"a":' * 150 + b"1" + b"}" * 150,
     b'{"model": ' + b"9" * 5000 + b"}", b"[" + b"1," * 300_000 + b"1]", b"[" + b"[]," * 300_000 + b"1]",
     b'{"model": "\\u0000"}', b'{"model": "\\ud800"}'],
    ids=lambda body: body[:12].decode("latin-1"),
)  # fmt: skip
def test_what_is_no_request_is_400(server, body):
    status, _, answer = server.ask("POST", "/v1/chat/completions", body)
    assert (status, "message" in json.loads(answer)["error"]) == (400, True)


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:,",
        "data:;base64,====",
        "data:;base64,AA=A",
        "data:;base64,A\u00e9AA",
        "data:video/mp4;base64,%%%",
    ],
)
def test_what_is_no_data_url_is_400(server, url):
    status, body = server.chat(url)
    assert (status, body["error"]["code"]) == (400, "media")


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e17])
def test_any_temperature_draws_a_token(server, temperature):
    assert server.chat("a.mp4", temperature=temperature, seed=1)[0] == 200


def test_what_is_no_clip_is_400_by_the_name_that_the_client_gave(client, server):
    import openai

    with pytest.raises(openai.BadRequestError, match=r"notes\.txt"):
        ask(client, "notes.txt")
    with pytest.raises(openai.BadRequestError, match="the data URL"):
        ask(client, "data:video/mp4;base64,AAAA")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=chat("a.mp4")["messages"])


def test_neither_null_nor_what_changes_nothing_is_refused(server):
    status, _ = server.chat(
        "a.mp4",
        n=1,
        stop=None,
        tools=[],
        user="me",
        frequency_penalty=0,
        response_format={"type": "text"},
        logprobs=False,
    )
    assert status == 200


def test_curl_asks_as_the_guide_says(server, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    request = json.dumps(chat("a.mp4", stream=True))
    arguments = ["curl", "-sSN", f"{server.base}/v1/chat/completions", "-H", "content-type: application/json"]
    out = subprocess.run([*arguments, "-d", request], capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [line for line in out.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_metrics_count_what_happened(server):
    server.chat("a.mp4")
    status, headers, body = server.ask("GET", "/metrics")
    text = body.decode()
    assert (status, headers["content-type"].startswith("text/plain")) == (200, True)
    for name in (
        'omniqa_requests_total{path="/v1/chat/completions",status="200"}', "omniqa_queue_length 0.0",
        "omniqa_clip_hits", 'omniqa_stage_seconds_total{stage="prefill"}', "omniqa_first_token_seconds_bucket",
    ):  # fmt: skip
        assert name in text
    server.ask("GET", "/" + "x" * 50)
    assert "xxx" not in server.ask("GET", "/metrics")[2].decode()


def test_the_encodings_in_memory_stay_within_bounds(qa, media_root):
    with running(qa, settings_for(media_root, {"clip_bytes": 1})) as client:
        for _ in range(2):
            status, body = client.chat("a.mp4")
            assert (status, body["omniqa"]["timing_s"]["vision_encoder"] > 0) == (200, True), "encoded again"
        assert (len(client.server.clips), client.server.clips.misses) == (0, 2)


class Slow:
    """A model's thread that is busy until it is told otherwise."""

    def __init__(self, server, monkeypatch):
        self.go = threading.Event()
        answer = server.server._completions._answerer
        original = answer.answer

        def slow(request, medium, turn, tell):
            while not self.go.wait(0.01):
                turn.check()
            return original(request, medium, turn, tell)

        monkeypatch.setattr(answer, "answer", slow)


def in_threads(count, call):
    """Call in so many threads at once; the threads, and a list that fills with what they got."""
    got = []
    threads = [threading.Thread(target=lambda: got.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, got


def test_a_full_queue_is_429_with_a_time_and_all_others_are_answered(qa, media_root, monkeypatch):
    with running(qa, settings_for(media_root, {"queued": 2})) as client:
        slow = Slow(client, monkeypatch)
        threads, got = in_threads(3, lambda: client.chat("a.mp4")[0])
        until(lambda: client.server.turns.waiting == 2)
        status, headers, body = client.ask("POST", "/v1/chat/completions", chat("a.mp4"))
        assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
        assert int(headers["retry-after"]) >= 1
        slow.go.set()
        for thread in threads:
            thread.join(60)
        assert got == [200, 200, 200]


def test_a_question_waits_only_so_long(qa, media_root, monkeypatch):
    with running(qa, settings_for(media_root, {"wait_s": 0.3})) as client:
        slow = Slow(client, monkeypatch)
        threads, _ = in_threads(1, lambda: client.chat("a.mp4"))
        until(lambda: client.server.turns.is_busy)
        status, body = client.chat("a.mp4")
        assert (status, "waited 0.3 s" in body["error"]["message"]) == (429, True)
        slow.go.set()
        threads[0].join(60)


def test_an_answer_takes_only_so_long(qa, media_root, monkeypatch):
    with running(qa, settings_for(media_root, {"turn_s": 0.3})) as client:
        Slow(client, monkeypatch)
        status, headers, body = client.ask("POST", "/v1/chat/completions", chat("a.mp4"))
        assert (status, headers["x-should-retry"]) == (504, "false")
        assert "longer than 0.3 s" in json.loads(body)["error"]["message"]


STEPS = {
    "a batch of frames": ("encoder.vision", "_encode_grids"),
    "a batch of sound": ("encoder.audio", "_encode_windows"),
    "a layer": ("decoder", "finish"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_client_that_goes_away_frees_its_turn_at_the_next_step(qa, media_root, monkeypatch, step, stream):
    monkeypatch.setattr("omniqa.models.qwen2_5_omni.vision.CPU_PATCHES", 1)  # a batch is one grid
    monkeypatch.setattr("omniqa.models.qwen2_5_omni.audio.BATCH_WINDOWS", 1)
    part = operator.attrgetter(STEPS[step][0])(qa)
    compute, begun, release, steps = getattr(part, STEPS[step][1]), threading.Event(), threading.Event(), []

    def held(*given):
        steps.append(step)
        begun.set()
        release.wait(20)
        return compute(*given)

    monkeypatch.setattr(part, STEPS[step][1], held)
    with running(qa, settings_for(media_root)) as client:
        try:
            with socket.create_connection(("127.0.0.1", client.port)) as connection:
                connection.sendall(posted(chat("inner/long.mp4", stream=stream)))
                assert begun.wait(20)
            until(lambda: not client.server.turns._running.wanted)
        finally:
            release.set()
        until(lambda: not client.server.turns.is_busy)
        assert len(steps) == 1, "nothing more was computed"
        assert client.chat("inner/long.mp4")[0] == 200
        assert len(steps) > 3, "there was more to compute"


def posted(body):
    """The bytes of a request for a chat completion."""
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def test_a_server_that_ends_finishes_what_it_has_begun(qa, media_root, monkeypatch):
    with running(qa, settings_for(media_root)) as client:
        slow = Slow(client, monkeypatch)
        threads, got = in_threads(2, lambda: client.chat("a.mp4")[0])
        until(lambda: client.server.turns.waiting == 1)
        threading.Timer(0.5, slow.go.set).start()
    for thread in threads:
        thread.join(60)
    assert got == [200, 200]
    assert not client.server.media.store.folder.exists()


def test_settings_that_would_let_anyone_in_are_refused(tmp_path):
    method = registry.create("none", 1.0)
    settings = {"method": method, "decoding": GenerationOptions()}
    from omniqa.serve.settings import ServeSettings

    with pytest.raises(omniqa.UsageError, match="Anyone who reaches"):
        ServeSettings(host="0.0.0.0", **settings)
    with pytest.raises(omniqa.UsageError, match="no folder"):
        ServeSettings(media_root=tmp_path / "none", **settings)
    with pytest.raises(omniqa.UsageError, match="empty"):
        ServeSettings(api_key=" ", **settings)
    assert ServeSettings(host="0.0.0.0", api_key="x", **settings).api_key == "x"
