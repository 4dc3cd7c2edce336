"""What `omniqa ask` does with hostile and odd media: exit code, seconds, peak memory, and what is said.

    python benchmarks/make_checkpoint.py small small-random
    python -m benchmarks.hostile small-random

Every case is a process of its own, forked from one that has answered a question already: seconds are of the CPU, with
loading the model; memory is all that the process holds, torch and the libraries included. The first row, an ordinary
clip, is what to compare with.
"""

import argparse
import io
import os
import sys
import tempfile
import threading
from contextlib import redirect_stdout
from pathlib import Path

import torch

from omniqa.cli import app
from tests.media.cases import REFUSED, TAKEN, eight_hours, ordinary

QUESTION = ["What is seen?", "--min-pixels", "784", "--max-pixels", "12544", "--max-new-tokens", "1", "-q"]


def run(arguments: list[str]) -> tuple[int, float, int, str]:
    """Exit code, seconds of CPU, peak resident bytes, and what was said on stderr, of the command in a forked process.

    A code below 0 is the signal that ended it.
    """
    with tempfile.TemporaryFile() as said, open(os.devnull, "wb") as nowhere:
        child = os.fork()
        if child == 0:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code = app.run(arguments)
            sys.stderr.flush()
            os._exit(code)
        _, status, usage = os.wait4(child, 0)
        said.seek(0)
        words = said.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, words


def row(name: str, path: Path, model: str, *options: str) -> None:
    code, seconds, peak, said = run(["ask", str(path), *QUESTION, "--model", model, *options])
    said = " ".join(said.replace(f"{path.parent}/", "").split())
    print(f"| {name} | {code} | {seconds:.1f} | {peak / 2**20:.0f} | {said} |", flush=True)


def named_pipe(folder: Path) -> Path:
    """A pipe into which an ordinary clip is written."""
    pipe, data = folder / "pipe", ordinary(folder / "piped").read_bytes()
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True).start()
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    model = parser.parse_args().model
    torch.set_num_threads(1)  # a process with threads can't be forked safely
    print("| case | exit code | CPU seconds | peak memory, MB | what is said |\n|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with redirect_stdout(io.StringIO()):  # what is imported on the way is imported once, before the processes part
            app.run(["ask", str(ordinary(folder / "first")), *QUESTION, "--model", model])
        for number, (case, make) in enumerate([*TAKEN.items(), *REFUSED.items()]):
            row(case, make(folder / f"case{number}"), model)
        row("named pipe", named_pipe(folder), model)
        long = eight_hours(folder / "long")
        row("8 silent hours, their last minute", long, model, "--start", str(8 * 3600 - 60))
        row("8 silent hours, picture alone", long, model, "--no-audio", "--max-frames", "16")


if __name__ == "__main__":
    main()
