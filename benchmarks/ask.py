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
import time
from pathlib import Path
from typing import Any

QUESTION = "What is seen, and what is heard?"


def matmul_rate(rows: int = 1536, width: int = 2048, out: int = 11008) -> float:
    """Measured FLOP/s of a bfloat16 product of a decoder layer's size, best of three."""
    import torch

    x, weight = torch.ones(rows, width, dtype=torch.bfloat16), torch.ones(out, width, dtype=torch.bfloat16)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * width * out / min(seconds)


def prefill_flops(config: dict[str, Any], answer: dict[str, Any]) -> float:
    """Operations of the decoder's prefill: matrices and causal attention, by the tokens each layer computed."""
    text = config["thinker_config"]["text_config"]
    width, heads = text["hidden_size"], text["num_attention_heads"]
    kv_width = width // heads * text["num_key_value_heads"]
    matrices = width * (2 * width + 2 * kv_width) + 3 * width * text["intermediate_size"]
    tokens = answer["tokens"]
    media = tokens["audio"] + tokens["video"]
    lengths = [tokens["text"] + share * media for share in answer["retention"]["per_layer"]]
    return sum(2 * matrices * n + 2 * n * n * width for n in lengths)


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

    rate = matmul_rate()
    config = json.loads((Path(arguments.model) / "config.json").read_text())
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
        floor = prefill_flops(config, runs[0]) / rate
        memory = max(run["memory"]["peak_rss_bytes"] for run in runs) / 1e9
        cells = [f"{value:.2f}" for value in [*seconds, floor, memory]]
        print(f"| {runs[0]['retention']['achieved']:.4f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
