"""Real clients of nano, which really answers: the openai package and curl."""

import base64
import json
import shutil
import subprocess

import pytest

from omniqa.models.base import PromptText, Turn
from tests.serve.conftest import NANO, SAMPLES, chat, running, settings_for, until
from tests.serve.test_api import Slow, in_threads

TIGER = SAMPLES / "tiger.mp4"
ORDER, LAST = "What happens, in order?", "What is heard last?"
KEY = "sk-0123456789"


@pytest.fixture(scope="module")
def openai():
    return pytest.importorskip("openai", reason="needs the openai package")


@pytest.fixture
def client(openai, nano_server):
    with connected(openai, nano_server) as client:
        yield client


def connected(openai, server, key="any"):
    return openai.OpenAI(base_url=f"{server.base}/v1", api_key=key, max_retries=0, timeout=60)


def ask(client, url, *questions, **more):
    return client.chat.completions.create(model="omniqa", messages=chat(url, *questions)["messages"], **more)


def text_of(completion):
    return completion.choices[0].message.content


def test_openai_gets_a_right_answer_by_path_upload_and_data_url(client):
    with TIGER.open("rb") as content:
        file = client.files.create(file=content, purpose="user_data")
    data = f"data:video/mp4;base64,{base64.b64encode(TIGER.read_bytes()).decode()}"
    answers = [ask(client, url, LAST) for url in ("tiger.mp4", file.id, data)]
    assert [text_of(answer) for answer in answers] == ["noise"] * 3
    assert [answer.model_extra["omniqa"]["timing_s"]["vision_encoder"] for answer in answers[1:]] == [0, 0]
    assert client.files.delete(file.id).deleted


def test_openai_streams_an_answer_and_goes_on_with_the_conversation(client, nano):
    pieces = [chunk.choices[0].delta.content for chunk in ask(client, "tiger.mp4", ORDER, stream=True)]
    first = "".join(piece or "" for piece in pieces)
    assert first == nano.ask(TIGER, ORDER, "omnidrop", 0.4).text
    assert len([piece for piece in pieces if piece]) > 3
    messages = chat("tiger.mp4", ORDER)["messages"]
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": LAST}]
    then = client.chat.completions.create(model="omniqa", messages=messages)
    expected = nano.ask(TIGER, PromptText(LAST, turns=(Turn(ORDER, first),)), "omnidrop", 0.4)
    assert (text_of(then), then.model_extra["omniqa"]["timing_s"]["vision_encoder"]) == (expected.text, 0)


def test_openai_raises_its_own_exceptions(openai, client, nano, monkeypatch):
    with pytest.raises(openai.BadRequestError, match="no field") as raised:
        ask(client, "tiger.mp4", extra_body={"retenton": 1})
    assert raised.value.param == "retenton"
    with pytest.raises(openai.NotFoundError, match=r"none\.mp4"):
        ask(client, "none.mp4")
    with pytest.raises(openai.BadRequestError, match="the model takes"):
        ask(client, "tiger.mp4", max_tokens=40_000)
    with pytest.raises(openai.BadRequestError, match="the data URL"):
        ask(client, "data:video/mp4;base64,AAAA", stream=True)
    limits = {"queued": 0, "turn_s": 60, "body_bytes": 100_000}
    strict = settings_for(SAMPLES, limits, api_key=KEY, allow_network=True, **NANO)
    with running(nano, strict) as server, connected(openai, server, KEY) as known:
        with connected(openai, server, KEY[:-1] + "8") as stranger, pytest.raises(openai.AuthenticationError):
            ask(stranger, "tiger.mp4")
        with pytest.raises(openai.PermissionDeniedError, match="not public"):
            ask(known, "http://127.0.0.1/clip.mp4")
        with pytest.raises(openai.APIStatusError, match="larger than") as too_large:
            ask(known, "data:video/mp4;base64," + "A" * 100_000)
        assert too_large.value.status_code == 413
        slow = Slow(server, monkeypatch)
        threads, got = in_threads(1, lambda: text_of(ask(known, "tiger.mp4", LAST)))
        until(lambda: server.server.turns.is_busy)
        with pytest.raises(openai.RateLimitError) as full:
            ask(known, "tiger.mp4")
        assert int(full.value.response.headers["retry-after"]) >= 1
        slow.go.set()
        threads[0].join(60)
        assert got == ["noise"]
    with connected(openai, server) as nobody, pytest.raises(openai.APIConnectionError):
        ask(nobody, "tiger.mp4")


def test_curl_asks_and_uploads(nano_server):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")

    def curl(path, *arguments):
        command = ["curl", "-sS", "--fail-with-body", f"{nano_server.base}{path}", *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    file = curl("/v1/files", "-F", f"file=@{TIGER}", "-F", "purpose=user_data")
    request = json.dumps(chat(file["id"], LAST))
    answer = curl("/v1/chat/completions", "-H", "content-type: application/json", "-d", request)
    assert answer["choices"][0]["message"]["content"] == "noise"
    assert curl(f"/v1/files/{file['id']}", "-X", "DELETE")["deleted"]


def test_the_report_of_answers_is_given_once_their_clip_is_still_there(nano_server):
    completions = [nano_server.chat("tiger.mp4", question)[1] for question in (ORDER, LAST)]
    ids = [completion["id"] for completion in completions]
    status, headers, body = nano_server.ask("POST", "/v1/reports", {"completions": ids})
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "attachment" in headers["content-disposition"]
    assert all(text in body.decode() for text in (ORDER, LAST, "tiger.mp4"))
    assert "/proc/" not in body.decode()
    other = nano_server.chat("hello.mp4", "What does the voice say?")[1]["id"]
    wrong = ({}, {"completions": [5]}, {"completions": [ids[0], other]}, {"completions": ids, "more": 1})
    for request in wrong:
        assert nano_server.ask("POST", "/v1/reports", request)[0] == 400
    assert nano_server.ask("POST", "/v1/reports", {"completions": ["chatcmpl-0"]})[0] == 404


def test_a_report_about_a_clip_that_is_gone_is_refused(nano, tmp_path):
    shutil.copy(TIGER, tmp_path / "clip.mp4")
    with running(nano, settings_for(tmp_path, **NANO)) as server:
        request = {"completions": [server.chat("clip.mp4", LAST)[1]["id"]]}
        shutil.copy(SAMPLES / "hello.mp4", tmp_path / "clip.mp4")
        status, _, body = server.ask("POST", "/v1/reports", request)
        assert (status, "has changed" in body.decode()) == (404, True)
        (tmp_path / "clip.mp4").unlink()
        assert server.ask("POST", "/v1/reports", request)[0] == 404
