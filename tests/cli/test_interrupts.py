"""Ctrl-C at any moment of a command: 130, and no thread and no file descriptor of its is left behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.eval.conftest import nano  # noqa: F401 (a fixture)
from tests.jobs.conftest import media  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")

INTERRUPTS = 3
INTERRUPTED = 130
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# Runs a command over and over in one process; says how long the first run took, and what each one that was interrupted
# left behind. Nothing is collected meanwhile, so that no cycle of ours goes unseen.
RUNNER = """
import gc, json, sys, time
from omniqa.cli.app import run
from tests.leftovers import left_behind, settled

arguments = json.loads(sys.argv[1])
say = lambda line: print(line, file=report)
report = open(int(sys.argv[2]), "w", buffering=1)
run(arguments)
begun = time.monotonic()
run(arguments)
say(time.monotonic() - begun)
gc.collect()
gc.disable()
before = settled()
while True:
    say("go")
    try:
        code = run(arguments)
        if code != 130:  # the interrupt is still to come
            time.sleep(60)
    except KeyboardInterrupt:
        code = 130
    left = left_behind(before)
    if any(name.startswith("ThreadPoolExecutor") for name in left):  # transformers', between its making and its `try`
        gc.collect()
        left = left_behind(before)
    say(json.dumps([code, left]))
"""


def interrupted(arguments):
    """Exit codes, and what was left behind, of a command that is interrupted at many moments."""
    moments, said = random.Random(0), []
    reading, writing = os.pipe()
    running = subprocess.Popen(
        [sys.executable, "-c", RUNNER, json.dumps(arguments), str(writing)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    os.close(writing)
    with open(reading) as report:
        try:
            seconds = float(report.readline())
            for _ in range(INTERRUPTS):
                assert report.readline() == "go\n"
                time.sleep(moments.random() * seconds)
                running.send_signal(signal.SIGINT)
                said.append(json.loads(report.readline()))
        finally:
            running.kill()
            running.wait()
    return said


@pytest.mark.parametrize("command", ["ask", "batch", "plan"])
def test_an_interrupt_is_130_and_leaves_nothing_open(media, nano, tmp_path, command):  # noqa: F811
    quick = ["--model", str(nano), "--fps", "1", "-q"]
    arguments = {
        "ask": [
            "ask",
            str(media / "a.mp4"),
            "What?",
            *quick,
            "--max-new-tokens",
            "3",
            "--trace",
            str(tmp_path / "t.npz"),
        ],
        "batch": [
            "batch",
            str(media),
            "What?",
            *quick,
            "--max-new-tokens",
            "3",
            "-o",
            "/dev/null",
            "--cache",
            str(tmp_path),
        ],
        "plan": ["plan", str(media / "a.mp4"), "--model", str(nano)],
    }[command]
    for code, left in interrupted(arguments):
        assert code == INTERRUPTED
        assert left == []
