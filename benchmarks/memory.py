"""How far the memory estimate of omniqa.pipeline.fit is from what a question really takes, on the CPU; and its times.

    python benchmarks/make_checkpoint.py mid mid-random
    omniqa nano make-clips clips --n 1 --seconds 60 --size 1024
    python -m benchmarks.memory mid-random clips/clip-00000.mp4

The peak is the process's own, from its start; the clip is asked about once, so that nothing is kept for a second
question. Answers of random weights mean nothing.
Seconds of loading are without imports; those to the first token are from the file, without loading.
"""

import argparse
import math

import omniqa
from omniqa.media.probe import probe
from omniqa.media.sampling import ClipOptions
from omniqa.models.qwen2_5_omni.checkpoint import pixel_bounds
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.pipeline.fit import METHOD, RETENTION, need
from omniqa.pipeline.stats import peak_rss_bytes
from omniqa.pipeline.token_estimate import estimate_tokens
from omniqa.pruning import registry
from omniqa.runtime.device import QUANTIZATIONS
from omniqa.runtime.generation_options import GenerationOptions


def main() -> None:
    """Ask once, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip")
    parser.add_argument("--method", default=METHOD)
    parser.add_argument("--retention", type=float, default=RETENTION)
    parser.add_argument("--max-pixels", type=int)
    parser.add_argument("--quantize", choices=QUANTIZATIONS)
    parser.add_argument("--block", type=int, help="of the vision encoder, before which tokens are pruned")
    parser.add_argument("--weights-cache", help="where quantised weights are kept; as omniqa does where not given")
    parser.add_argument("--new-tokens", type=int, default=2)
    arguments = parser.parse_args()
    qa = omniqa.load(arguments.model, device="cpu", quantize=arguments.quantize, weights_cache=arguments.weights_cache)
    sampling = ClipOptions(max_pixels=arguments.max_pixels)
    options = {} if arguments.block is None else {"vision_block": arguments.block}
    method = registry.create(arguments.method, arguments.retention, **options)
    decoding = GenerationOptions(arguments.new_tokens, stop_at_end=False)
    answer = qa.ask(arguments.clip, "What is seen?", method, sampling=sampling, decoding=decoding)
    clip = estimate_tokens(probe(arguments.clip), sampling.within(pixel_bounds(arguments.model)))
    plan = method.plan(clip, qa.model.layers)
    shape, rule = ModelShape.of(arguments.model), method.vision_rule(plan)
    estimate = need(shape, plan, quantize=arguments.quantize, rule=rule)
    peak, seconds = peak_rss_bytes(), answer.stats.timing_s
    print(f"{clip.n_video} video, {clip.n_audio} audio tokens, {plan.kept[0]} enter")
    for stage in ("load", "vision_encoder", "prefill", "time_to_first_token"):
        print(f"{stage:20} {seconds[stage]:7.1f} s")
    print(f"tokens a second      {1 / (answer.stats.seconds_per_token or math.inf):7.2f}")
    for name, size in {**vars(estimate), "estimate": estimate.total, "measured": peak}.items():
        print(f"{name:12} {size / 2**30:7.2f} GiB")
    print(f"estimate / measured {estimate.total / peak:.3f}")


if __name__ == "__main__":
    main()
