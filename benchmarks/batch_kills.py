"""`omniqa batch` on many clips with nano: how fast it is, and that neither kills nor Ray change its answers.

    python -m benchmarks.batch_kills --clips 200 --kills 20

Clips are drawn and asked three questions each: once undisturbed; once killed with SIGKILL at random moments and gone on
with; once on two local actors of Ray, one of which is killed in the middle. All three must give the same lines, apart
from timings and memory. Ends with exit code 1 where they don't. `--folder` keeps what is made; parts that are there
already are not made again.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from omniqa.nano import clips as nano_clips
from omniqa.nano.scenes import draw

QUESTIONS = ("What is seen?", "What is heard?", "What does the voice say?")
SECONDS, SCENES, SIZE = 4.0, 2, 112
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
UNLIKE = {"timing_s": None, "memory": None}


def command(folder: Path, out: Path, *more: str) -> list[str]:
    asked = [word for question in QUESTIONS for word in ("-Q", question)]
    batch = [sys.executable, "-m", "omniqa", "batch", str(folder / "clips")]
    return [*batch, *asked, "--model", "nano", "-o", str(out), *more]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | UNLIKE for line in path.read_bytes().splitlines()]


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def speed(said: str) -> str:
    """The line of stderr that says how fast it went."""
    return next((line for line in said.splitlines() if " waited " in line), said)


def run(words: list[str]) -> str:
    """Run to the end; how fast it went, and the CPU seconds that it took."""
    before = os.times()
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {done.stderr}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return f"{speed(done.stderr)}; {spent:.0f} s of CPU"


def killed(folder: Path, out: Path, kills: int, total: int) -> None:
    """Kill it whenever a random number of lines is there, a random moment later; then let it end."""
    moments = random.Random(0)
    halves = 0
    for wanted in sorted(moments.sample(range(total), kills)):
        running = subprocess.Popen(command(folder, out, "-q"), env=ENVIRONMENT)
        while running.poll() is None and count(out) < wanted:
            time.sleep(0.005)
        time.sleep(moments.random() * 0.3)
        running.send_signal(signal.SIGKILL)
        running.wait()
        halves += out.exists() and not out.read_bytes().endswith(b"\n")
    before = count(out)
    run(command(folder, out))
    print(f"killed {kills} times, {halves} times within a line; {total - before} lines were left for the last run")


def actors() -> list[psutil.Process]:
    """The actors of the Ray cluster below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::MapWorker(MapBatches(Worker))"):
            found.append(process)
    return found


def on_ray(folder: Path, out: Path, total: int) -> None:
    """Two actors, one of which is killed when half of the lines are there."""
    with tempfile.TemporaryFile("w+") as said:
        words = command(folder, out, "--engine", "ray", "--num-actors", "2", "--ray-address", "local")
        running = subprocess.Popen(words, env=ENVIRONMENT, stderr=said)
        while running.poll() is None and count(out) < total // 2:
            time.sleep(0.05)
        victims = actors()
        if running.poll() is None:
            victims[0].kill()
            print(f"one of {len(victims)} Ray actors killed after {count(out)} lines", flush=True)
        code = running.wait()
        said.seek(0)
        print(f"Ray: exit code {code}; {speed(said.read())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        total = given.clips * len(QUESTIONS)
        whole, kept, spread = (folder / f"{name}.jsonl" for name in ("whole", "killed", "ray"))
        if not (folder / "clips" / nano_clips.QUESTIONS).exists():
            scripts = [draw(seed, SECONDS, SCENES) for seed in range(given.clips)]
            list(nano_clips.make_clips(folder / "clips", scripts, SIZE))
        if count(whole) < total:
            print(f"undisturbed: {run(command(folder, whole))}", flush=True)
        if count(kept) < total:
            killed(folder, kept, given.kills, total)
        same = lines(kept) == lines(whole)
        print(f"killed and gone on with: {count(kept)} lines, {'the same' if same else 'OTHERS'} in the same order")
        if count(spread) < total:
            on_ray(folder, spread, total)
        by_id = {row["id"]: row for row in lines(whole)}
        found = lines(spread)
        alike = {row["id"]: row for row in found} == by_id and len(found) == len(by_id)
        print(f"Ray: {len(found)} lines, {'the same' if alike else 'OTHERS'}, none twice and none missing")
    sys.exit(not (same and alike))


if __name__ == "__main__":
    main()
