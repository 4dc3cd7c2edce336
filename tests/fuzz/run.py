"""Mutated media through the command line's own entry: how each file ends, and what it costs.

    nice python -m tests.fuzz.run --count 1080 --seed 1 -o fuzz.jsonl
    nice python -m tests.fuzz.run --only 38,290 --keep files     # some of them again, and what was asked about

One process loads nano and forks for each file, so that seconds of the CPU and peak memory are that file's alone. The
same command goes on where it was stopped. The end shows a table; the exit code is 1 where the bounds do not hold:

- every file ends with exit code 0, 3 or 5, within 3 times an ordinary clip's CPU seconds and twice its memory, both
  beyond the loaded model (an ordinary clip is sample_media/tiger.mp4, or the whole file, if that costs more);
- of the files from which FFmpeg decodes a frame, 95 % are answered.
"""

import argparse
import ctypes
import gc
import json
import os
import random
import resource
import signal
import statistics
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import psutil
import torch

from omniqa.cli import app
from omniqa.cli import ask as ask_command
from omniqa.cli.loading import load_silently
from tests.conftest import ROOT
from tests.fuzz import seeds
from tests.fuzz.mutate import mutated

QUESTION = ["What is seen?", "--model", "nano", "--max-new-tokens", "1", "--max-pixels", "12544", "-q"]
RIGHT_ENDS = {0, 3, 5}
CPU_TIMES, MEMORY_TIMES = 3, 2
ANSWERED_SHARE = 0.95
ORDINARY = ROOT / "sample_media" / "tiger.mp4"
_ORDINARY_RUNS = 5
_HARD_SECONDS = 120  # of the CPU, and twice that by the clock: a file that takes longer is stopped
_TRIED_PACKETS = 2000
_SAID = 500  # characters of what was said that are kept


@dataclass(frozen=True)
class Outcome:
    """How a process ended. code: below 0, the signal. peak_mb: of all that it holds, the libraries included."""

    code: int
    cpu_s: float
    peak_mb: float
    said: str


@dataclass(frozen=True)
class Case:
    """A mutated file, how the command ended on it, and whether FFmpeg decodes a frame of it."""

    number: int
    seed: str
    change: str
    outcome: Outcome
    decodes: bool


def forked(work: Callable[[], int]) -> Outcome:
    """What becomes of `work`, which gives an exit code, in a process of its own."""
    with tempfile.TemporaryFile() as said, open(os.devnull, "wb") as nowhere:
        child = os.fork()
        if child == 0:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(said.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_CPU, (_HARD_SECONDS, _HARD_SECONDS))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(2 * _HARD_SECONDS)
            code = 1
            try:
                code = work()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status, usage = os.wait4(child, 0)
        said.seek(0)
        words = said.read().decode(errors="replace")
    seconds = round(usage.ru_utime + usage.ru_stime, 3)
    code, peak = os.waitstatus_to_exitcode(status), round(usage.ru_maxrss / 1024, 1)
    return Outcome(code, seconds, peak, " ".join(words.split())[:_SAID])


def asked(path: Path) -> Outcome:
    """The command line, asked about a file."""
    return forked(lambda: app.run(["ask", str(path), *QUESTION]))


def idle_mb(path: Path) -> float:
    """What a process holds that has answered a question about an ordinary clip, and does nothing."""

    def work() -> int:
        code = app.run(["ask", str(path), *QUESTION])
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        print(psutil.Process().memory_info().rss / 2**20, file=sys.stderr)
        return code

    return float(forked(work).said)


def decodes(path: Path) -> bool:
    """Whether FFmpeg, told nothing, decodes a frame of the file's picture or sound, whatever errors come before."""
    return forked(lambda: 0 if _decodes_here(str(path)) else 9).code == 0


def _decodes_here(path: str) -> bool:
    os.close(2)
    try:
        with av.open(path) as container:
            streams = [one for one in (*container.streams.video, *container.streams.audio) if one.codec_context]
            if not streams:
                return False
            for number, packet in enumerate(container.demux(*streams)):
                try:
                    if packet.decode():
                        return True
                except av.error.FFmpegError:
                    continue
                if number > _TRIED_PACKETS:
                    return False
    except (av.error.FFmpegError, IndexError, ValueError):
        return False
    return False


def available(folder: Path) -> dict[str, bytes]:
    """The seeds that this build of FFmpeg can write, and PyAV decodes."""
    pictures, sound = seeds.clip()
    made = {}
    for name in seeds.SEEDS:
        try:
            made[name] = seeds.make(name, folder, pictures, sound)
        except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return made


def cases(made: dict[str, bytes], numbers: Iterable[int], seed: int, folder: Path) -> Iterator[Case]:
    """Ask about mutated files by their numbers; one container follows the other. They are left in `folder`."""
    names = list(seeds.SEEDS)
    for number in numbers:
        name = names[number % len(names)]
        if name not in made:
            continue
        chance = random.Random(zlib.crc32(f"{seed}/{number}/{name}".encode()))
        data, change = mutated(made[name], seeds.SEEDS[name].layout, chance)
        path = folder / f"{number}.{seeds.SEEDS[name].suffix}"
        path.write_bytes(data)
        outcome = asked(path)  # what is answered has been decoded
        yield Case(number, name, change, outcome, outcome.code == 0 or decodes(path))


@dataclass(frozen=True)
class Ordinary:
    """What an ordinary clip costs. idle_mb: what the process holds that has loaded the model. mb: beyond that."""

    cpu_s: float
    mb: float
    idle_mb: float

    @classmethod
    def measured(cls, path: Path) -> "Ordinary":
        """The median of a few runs."""
        runs, idle = [asked(path) for _ in range(_ORDINARY_RUNS)], idle_mb(path)
        return cls(statistics.median(r.cpu_s for r in runs), statistics.median(r.peak_mb for r in runs) - idle, idle)

    def or_whole(self, outcome: Outcome) -> "Ordinary":
        """The larger of each: this, and the file that was mutated, while it was whole."""
        return replace(self, cpu_s=max(self.cpu_s, outcome.cpu_s), mb=max(self.mb, self.beyond(outcome)))

    def beyond(self, outcome: Outcome) -> float:
        """MB beyond the loaded model."""
        return max(0.0, outcome.peak_mb - self.idle_mb)

    def breaches(self, end: Outcome) -> list[str]:
        """What is wrong with an outcome."""
        wrong = [f"exit code {end.code}"] if end.code not in RIGHT_ENDS else []
        if end.cpu_s > CPU_TIMES * self.cpu_s:
            wrong.append(f"{end.cpu_s:.2f} s of the CPU")
        if self.beyond(end) > MEMORY_TIMES * self.mb:
            wrong.append(f"{self.beyond(end):.0f} MB")
        return wrong


def wrong_with(case: Case, ordinary: Ordinary, made: dict[str, bytes], folder: Path) -> list[str]:
    """What is wrong with a case. A container of larger pictures may cost as much as its whole file does."""
    if not ordinary.breaches(case.outcome):
        return []
    path = folder / f"whole.{seeds.SEEDS[case.seed].suffix}"
    path.write_bytes(made[case.seed])
    return ordinary.or_whole(asked(path)).breaches(case.outcome)


def table(found: list[Case], ordinary: Ordinary) -> str:
    """The result of all containers, a row each, and of all together."""
    lines = [
        "| container | files | exit 0 | exit 3 | exit 5 | other | FFmpeg decodes | of these answered | CPU s | MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    groups = {
        name: [case for case in found if case.seed == name] for name in dict.fromkeys(case.seed for case in found)
    }
    for name, group in [*groups.items(), ("all", found)]:
        codes = Counter(case.outcome.code for case in group)
        other = sum(count for code, count in codes.items() if code not in RIGHT_ENDS)
        whole = [case for case in group if case.decodes]
        good = sum(case.outcome.code == 0 for case in whole)
        share = f"{100 * good / len(whole):.1f} %" if whole else "-"
        cpu, memory = max(case.outcome.cpu_s for case in group), max(ordinary.beyond(case.outcome) for case in group)
        lines.append(
            f"| {name} | {len(group)} | {codes[0]} | {codes[3]} | {codes[5]} | {other} | {len(whole)} | {share} | "
            f"{cpu:.2f} | {memory:.0f} |"
        )
    lines.append(
        f"\nAn ordinary clip ({ORDINARY.name}): {ordinary.cpu_s:.2f} s, {ordinary.mb:.0f} MB beyond the loaded model "
        f"({ordinary.idle_mb:.0f} MB)."
    )
    return "\n".join(lines)


def prepared() -> None:
    """Load nano once, and let the command use it in every process that is forked."""
    torch.set_num_threads(1)  # a process with threads can't be forked safely
    loaded = []

    def load_once(loading, encoding):
        if not loaded:
            loaded.append(load_silently(loading, encoding))
        return loaded[0]

    ask_command.load_model = load_once


def first_answer(path: Path) -> None:
    """Answer once here, so that what is imported on the way is imported before processes are forked."""
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        code = app.run(["ask", str(path), *QUESTION])
    os.dup2(kept, 1)
    if code:
        raise SystemExit(f"The ordinary clip ends with exit code {code}.")


def read(file: Path) -> list[Case]:
    """The cases that a run has written."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [Case(**row | {"outcome": Outcome(**row["outcome"])}) for row in rows]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="numbers of files, with commas: those alone")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no file after so many")
    parser.add_argument("--untimed", action="store_true", help="do not hold files to seconds of the CPU")
    parser.add_argument("--keep", type=Path, help="a folder for the mutated files")
    parser.add_argument("-o", "--output", type=Path, help="go on from, and add to, the results in this file")
    return parser.parse_args()


def wanted(given: argparse.Namespace, found: list[Case]) -> Iterable[int]:
    """The numbers of the files that are still to be asked about."""
    if given.only:
        return [int(number) for number in given.only.split(",")]
    return range(1 + max((case.number for case in found), default=-1), given.count)


def main() -> int:
    given, begun = arguments(), time.monotonic()
    prepared()
    with tempfile.TemporaryDirectory() as name, (given.output or Path(os.devnull)).open("a") as lines:
        folder = Path(name)
        kept = given.keep or folder
        kept.mkdir(exist_ok=True)
        made, found = available(folder), read(given.output) if given.output else []
        first_answer(ORDINARY)
        ordinary = Ordinary.measured(ORDINARY)
        if given.untimed:
            ordinary = replace(ordinary, cpu_s=float("inf"))
        for case in cases(made, wanted(given, found), given.seed, kept):
            found.append(case)
            lines.write(json.dumps(asdict(case)) + "\n")
            lines.flush()
            if time.monotonic() - begun > given.seconds:
                break
        wrong = [(case, said) for case in found for said in wrong_with(case, ordinary, made, folder)]
    print(table(found, ordinary))
    for case, said in wrong:
        print(f"{case.number}, {case.seed}, {case.change}: {said}. {case.outcome.said}")
    whole = [case for case in found if case.decodes]
    answered = sum(case.outcome.code == 0 for case in whole)
    return int(bool(wrong) or answered < ANSWERED_SHARE * len(whole))


if __name__ == "__main__":
    sys.exit(main())
