"""Many clients at once against `omniqa serve`: whether each is answered or told to wait, and what memory it takes.

    python -m benchmarks.serve_load --clients 50 --queue 8 --answers 500

Starts a server of nano. Each client asks about one of some clips, by its path or as a data URL, with and without a
stream, by several methods; half of the questions have turns before them. One who is told to wait asks again once that
time is over. RSS is the server process's own, read after every hundred answers. Ends with exit code 1 if a request
hangs, fails in another way than by 429, or if RSS at the end is more than 1.05 of that after the first hundred.
"""

import argparse
import base64
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from omniqa.nano import clips as nano_clips
from omniqa.nano.scenes import draw

CLIPS, SECONDS, SCENES, SIZE = 6, 4.0, 2, 112
QUESTIONS = ("What happens, in order?", "What is heard last?", "What does the voice say?", "Is a red circle shown?")
METHODS = ({}, {"method": "none"}, {"retention": 0.2}, {"method": "fastv", "retention": 0.5})
HANG_S = 300
FIRST, MOST_GROWTH = 100, 1.05


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server's process and its port; it is ended with SIGTERM, if it still runs."""
    command = [sys.executable, "-m", "omniqa", "serve", "--model", "nano", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        yield process, _port(process)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _port(process: subprocess.Popen[str]) -> int:
    said = []
    for line in process.stderr or ():
        said.append(line)
        if line.startswith("omniqa: serving "):
            return int(line.partition("://")[2].split("/")[0].rpartition(":")[2])
    sys.exit(f"The server did not start: {''.join(said)}")


def ask(port: int, body: dict[str, Any]) -> tuple[int, str, float]:
    """Status and text of a chat completion, and the seconds after which to ask again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(), float(response.headers.get("retry-after", "0"))
    finally:
        connection.close()


def question(clip: Path, draws: random.Random) -> dict[str, Any]:
    """A request about a clip."""
    content = base64.b64encode(clip.read_bytes()).decode()
    url = draws.choice([clip.name, f"data:video/mp4;base64,{content}"])
    texts = draws.sample(QUESTIONS, 2)
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": texts[0]}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if draws.random() < 0.5:
        messages += [{"role": "assistant", "content": "noise"}, {"role": "user", "content": texts[1]}]
    return {"model": "omniqa", "messages": messages, "stream": draws.random() < 0.5, **draws.choice(METHODS)}


@dataclass
class Load:
    """What the clients have seen."""

    port: int
    clips: list[Path]
    wanted: int
    process: psutil.Process
    statuses: Counter[str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    rss: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, seed: int) -> None:
        """Ask until all clients together have had as many answers as are wanted."""
        draws = random.Random(seed)
        while len(self.answered_s) < self.wanted:
            body, begun, again_s = question(draws.choice(self.clips), draws), time.monotonic(), 0.0
            try:
                status, text, again_s = ask(self.port, body)
                seen = str(status) if status != 200 else "answered" if _is_whole(text, body["stream"]) else "broken off"
            except (OSError, http.client.HTTPException) as error:
                seen = type(error).__name__
            self._note(seen, time.monotonic() - begun)
            time.sleep(again_s)

    def _note(self, seen: str, seconds: float) -> None:
        with self._lock:
            self.statuses[seen] += 1
            if seen == "answered":
                self.answered_s.append(seconds)
                if len(self.answered_s) in (*range(FIRST, self.wanted, FIRST), self.wanted):
                    self.rss[len(self.answered_s)] = rss = self.process.memory_info().rss
                    print(f"{len(self.answered_s)} answered: RSS {rss / 1e6:.0f} MB", flush=True)
            elif seen == "429":
                self.refused_s.append(seconds)


def _is_whole(text: str, stream: bool) -> bool:
    return text.endswith("data: [DONE]\n\n") if stream else bool(json.loads(text)["choices"])


def run(clients: int, queue: int, answers: int, folder: Path) -> bool:
    """Make the load, and tell what came of it; whether all is well."""
    list(nano_clips.make_clips(folder, [draw(seed, SECONDS, SCENES) for seed in range(CLIPS)], SIZE))
    clips = sorted(folder.glob("*.mp4"))
    with serving("--media-root", str(folder), "--queue", str(queue), OMP_NUM_THREADS="1") as (process, port):
        load = Load(port, clips, answers, psutil.Process(process.pid))
        threads = [threading.Thread(target=load.client, args=(seed,)) for seed in range(clients)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begun
    return _tell(load, seconds)


def _tell(load: Load, seconds: float) -> bool:
    rss = [load.rss[count] for count in sorted(load.rss)]
    growth = rss[-1] / rss[0]
    print(f"{sum(load.statuses.values())} requests in {seconds:.0f} s: {dict(load.statuses)}")
    for name, times in (("answered", load.answered_s), ("429", load.refused_s)):
        if times:
            print(f"{name}: median {statistics.median(times):.2f} s, slowest {max(times):.2f} s")
    print(f"RSS at the end is {growth:.3f} of that at first")
    return set(load.statuses) <= {"answered", "429"} and growth <= MOST_GROWTH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--queue", type=int, default=8)
    parser.add_argument("--answers", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run(given.clients, given.queue, given.answers, Path(folder)))


if __name__ == "__main__":
    main()
