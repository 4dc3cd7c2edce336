"""transformers with qwen-omni-utils' preprocessing, as its users run it, in a process of its own.

`Theirs` starts that process, which loads the checkpoint once, and has it answer one question after another; requests
and answers are lines of JSON. Run as a program, this file is that process.

What it does for a question is what the model's page tells users to do: the chat template over a conversation that
names the file, `process_mm_info`, the processor, `generate`. Nothing of omniqa computes anything in it.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
READERS = ("torchcodec", "decord")  # of video files, by qwen-omni-utils; torchvision has none since 0.24
ADVICE = (
    "Install what is missing (pip install torchvision 'qwen-omni-utils[decord]' imageio-ffmpeg), or name the folders "
    "it lies in by --path FOLDER; --without-transformers leaves transformers out."
)

_declared: list[Any] = []  # operations are, as long as their library lives


class TheirsError(Exception):
    """transformers could not do what it was asked to; the message says why."""


class Theirs:
    """The process, seen from the one that asks.

    model: a folder or a hub id. dtype: "auto", "bfloat16" or "float32". paths: folders that packages are looked for
    in where the environment lacks them.
    about: versions and threads, as the process gives them once it has loaded the checkpoint.

    Raises TheirsError where it can't load.
    """

    def __init__(self, model: str, dtype: str, device: str, threads: int, paths: Sequence[Path] = ()) -> None:
        name = str(Path(model).resolve()) if Path(model).is_dir() else model
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.theirs",
            name,
            "--dtype",
            dtype,
            "--device",
            device,
        ]
        command += ["--threads", str(threads), *(part for path in paths for part in ("--path", str(path.resolve())))]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.about = self._answer()
        except TheirsError:
            self.close()
            raise

    def __enter__(self) -> "Theirs":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None and self._process.stdin:
            self._process.stdin.close()  # which is what it waits for
        self._process.wait()

    def ask(self, clip: Path, question: str, frames: int, size: tuple[int, int], sound: bool) -> dict[str, Any]:
        """One question about one file, to the first token. Raises TheirsError.

        frames: how many it takes. size: (height, width) that they get. sound: whether the file has any.
        """
        height, width = size
        video = {"type": "video", "video": str(clip.resolve()), "nframes": frames}
        video |= {"resized_height": height, "resized_width": width}
        request = json.dumps({"video": video, "question": question, "sound": sound})
        with contextlib.suppress(BrokenPipeError):  # what comes back, or does not, tells
            print(request, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise TheirsError(f"transformers' process ended with exit code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise TheirsError(answer["error"])
        return answer


class StageHooks:
    """Seconds that parts of a model take, by hooks around their forward."""

    def __init__(self, device: Any, parts: dict[str, Any]) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        for name, part in parts.items():
            part.register_forward_pre_hook(lambda *_, name=name: self._begin(name))
            part.register_forward_hook(lambda *_, name=name: self._end(name))

    def _begin(self, name: str) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) - now(self._device)

    def _end(self, name: str) -> None:
        self.seconds[name] += now(self._device)


def now(device: Any) -> float:
    """The clock, once the device has done what it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


class Model:
    """transformers' processor and Thinker."""

    def __init__(self, name: str, dtype: str, device: str) -> None:
        import torch
        from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.device = torch.device(device)
        safe = {"trust_remote_code": False}
        self.processor = Qwen2_5OmniProcessor.from_pretrained(name, **safe)
        load: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained
        self.thinker = load(name, dtype=dtype, **safe).to(self.device)
        # Where the two encoders are differs from version to version.
        parts = {path.split(".")[-1]: part for path, part in self.thinker.named_modules()}
        encoders = {"vision_encoder": parts["visual"], "audio_encoder": parts["audio_tower"]}
        self._hooks = StageHooks(self.device, encoders)
        # Newer versions want to be told whose sound it is that comes beside the video.
        linked = hasattr(Qwen2_5OmniProcessor, "replace_video_with_audio_token")
        asked = {"load_audio_from_video": True, "audio_from_video_indices": [0]} if linked else None
        self._both: dict[str, Any] = asked or {"use_audio_in_video": True}

    def answer(self, video: dict[str, Any], question: str, sound: bool) -> dict[str, Any]:
        """From the file to the first token: seconds by stage, tokens, grids, peaks of memory."""
        from qwen_omni_utils import process_mm_info

        from omniqa.bench.run import reset_rss_peak
        from omniqa.models.qwen2_5_omni.template import SYSTEM_PROMPT
        from omniqa.pipeline.stats import peak_device_bytes, peak_rss_bytes, reset_device_peak

        conversation = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
            {"role": "user", "content": [video, {"type": "text", "text": question}]},
        ]
        reset_device_peak([self.device])
        rss_is_ours = reset_rss_peak()
        self._hooks.seconds = {}
        times = [now(self.device)]
        text = self.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        audio, images, videos = process_mm_info(conversation, use_audio_in_video=sound)
        times.append(now(self.device))
        both = self._both if sound else {}
        batch = self.processor(text=text, audio=audio, images=images, videos=videos, return_tensors="pt", **both)
        batch = batch.to(self.device).to(self.thinker.dtype)
        times.append(now(self.device))
        ids = self.thinker.generate(**batch, use_audio_in_video=sound, max_new_tokens=1, do_sample=False)
        first = int(ids[0, -1])
        times.append(now(self.device))

        encoders = {name: self._hooks.seconds.get(name, 0.0) for name in ("vision_encoder", "audio_encoder")}
        decode, preprocess, rest = (after - before for before, after in pairwise(times))
        seconds = {"decode": decode, "preprocess": preprocess, **encoders, "prefill": rest - sum(encoders.values())}
        return self._counts(batch) | {
            "seconds": seconds | {"time_to_first_token": times[-1] - times[0]},
            "first_token": first,
            "peak_rss_bytes": peak_rss_bytes() if rss_is_ours else None,
            "peak_device_bytes": peak_device_bytes([self.device]),
        }

    def _counts(self, batch: Any) -> dict[str, Any]:
        """Tokens by kind, and grids."""
        config, ids = self.thinker.config, batch["input_ids"][0]
        audio = int((ids == config.audio_token_id).sum())
        video = int((ids == config.video_token_id).sum())
        tokens = {"text": len(ids) - audio - video, "audio": audio, "video": video}
        return {"tokens": tokens, "grids": int(batch["video_grid_thw"][0, 0])}


def make_importable() -> None:
    """Ready what qwen-omni-utils imports, also where it lies beside an environment. Raises ImportError."""
    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None:
        raise ImportError("No module named 'torchvision'")
    compiled = Path(found.submodule_search_locations[0]).glob("_C*.so")  # type: ignore[index]  # its name varies
    try:
        torch.ops.load_library(next(compiled, "_C.so"))
    except OSError:
        # Built for another torch: preprocessing uses no compiled part of it, but these must be declared.
        library = torch.library.Library("torchvision", "DEF")
        for operation in ("nms", "qnms"):
            library.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    if not any(importlib.util.find_spec(reader) for reader in READERS):
        raise ImportError(f"None of {', '.join(READERS)} is installed, so qwen-omni-utils can't read video files")
    import qwen_omni_utils  # noqa: F401
    from audioread import ffdec

    if not ffdec.available():
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
        except ImportError as error:
            raise ImportError("There is no ffmpeg, which qwen-omni-utils reads sound with") from error
        ffdec.COMMANDS = (get_ffmpeg_exe(),)


def versions() -> dict[str, str]:
    """Of what computes the answer."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "transformers", "qwen-omni-utils", "torchvision", *READERS, "librosa"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def load(name: str, dtype: str, device: str, threads: int) -> tuple[Model, dict[str, Any]]:
    """The model, and what is to be known about the process."""
    import torch

    torch.set_num_threads(threads)
    begun = time.perf_counter()
    model = Model(name, dtype, device)
    stored = str(model.thinker.dtype).removeprefix("torch.")
    about = {"load_s": time.perf_counter() - begun, "dtype": stored, "threads": torch.get_num_threads()}
    return model, about | {"versions": versions()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--path", type=Path, action="append", default=[], help="a folder of packages; repeats")
    given = parser.parse_args()

    answers = os.fdopen(os.dup(1), "w")  # what others print to stdout must not come between
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    sys.path.extend(str(path) for path in given.path)
    try:
        make_importable()
        model, about = load(given.model, given.dtype, given.device, given.threads)
    except ImportError as error:
        reply({"error": f"{error}. {ADVICE}"})
        return
    except (OSError, ValueError) as error:
        reply({"error": f"transformers can't load {given.model}: {error}"})
        return
    reply(about)
    for line in sys.stdin:
        try:
            reply(model.answer(**json.loads(line)))
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs beside the table
            reply({"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]})


if __name__ == "__main__":
    main()
