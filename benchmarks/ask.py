"""Time and memory of `omniqa ask` as a user runs it, each run a process of its own, retentions in turn.

    python benchmarks/make_checkpoint.py 3b 3b-random
    python benchmarks/ask.py 3b-random CLIP --retention 1.0 --retention 0.3 --runs 2

Prints a Markdown table of medians. The floor of a prefill is the operations that its tokens need, counted from the
tokens that each layer really computed, over the matrix rate measured in the same run.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from omniqa.model.rate import matmul_rate
from omniqa.model.work import ModelShape

QUESTION = "What is seen, and what is heard?"


def layer_lengths(answer: dict[str, Any]) -> list[float]:
    """How many tokens each layer computed, text included."""
    tokens = answer["tokens"]
    return [tokens["text"] + share * (tokens["audio"] + tokens["video"]) for share in answer["retention"]["per_layer"]]


def ask(model: str, clip: str, retention: float, more: list[str]) -> dict[str, Any]:
    """One run in a process of its own; its JSON."""
    command = [sys.executable, "-m", "omniqa", "ask", clip, QUESTION, "--model", model, "--retention", str(retention)]
    out = subprocess.run([*command, "--json", "-q", *more], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip")
    parser.add_argument("--retention", type=float, action="append", required=True)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all runs' JSON here, a line each")
    arguments, more = parser.parse_known_args()
    more += ["--max-new-tokens", "8"]

    rate, shape = max(map(matmul_rate, (torch.bfloat16, torch.float32))), ModelShape.of(arguments.model)
    answers: dict[float, list[dict[str, Any]]] = {retention: [] for retention in arguments.retention}
    for _ in range(arguments.runs):
        for retention, runs in answers.items():
            runs.append(ask(arguments.model, arguments.clip, retention, more))
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(runs[-1]) + "\n")

    print(f"\nbfloat16 matrix rate measured in this run: {rate / 1e12:.3f} TFLOP/s; medians of {arguments.runs} runs\n")
    stages = ("load", "decode", "vision_encoder", "audio_encoder", "input_pruning", "prefill", "time_to_first_token")
    print(f"| R achieved | {' | '.join(f'{stage} s' for stage in stages)} | prefill floor s | peak RSS GB |")
    print("|" + "---:|" * (len(stages) + 3))
    for runs in answers.values():
        seconds = [statistics.median(run["timing_s"][stage] for run in runs) for stage in stages]
        floor = shape.prefill(layer_lengths(runs[0])) / rate
        memory = max(run["memory"]["peak_rss_bytes"] for run in runs) / 1e9
        cells = [f"{value:.2f}" for value in [*seconds, floor, memory]]
        print(f"| {runs[0]['retention']['achieved']:.4f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
