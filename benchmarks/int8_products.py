"""Ways to multiply by an 8-bit weight on this CPU: how fast, and how far from float32.

    python -m benchmarks.int8_products
    python -m benchmarks.int8_products --only omniqa --only _int_mm

Rates are of one core by its own time, the best of a few rounds, ways in turn: other work on the machine counts little.
Errors are of outputs, as shares of their norm: on normal numbers, on the inputs of every linear layer of nano while it
answers a question (the median layer, and the worst), and on rows and weights that are all ones, where 8-bit products
are exact unless sums overflow. torchao and bitsandbytes are measured if they are installed.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from warnings import simplefilter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import omniqa
from omniqa.cli.doctor import CHECKS, CLIP
from omniqa.runtime.int8 import Int8Linear, quantize_weight
from omniqa.runtime.int8_kernels import Fbgemm, Kernel, OneDnn, activation_steps

SHAPES = ((2048, 11008), (1280, 3420))  # in, out: the 3B's decoder and vision encoder
ROWS = (1, 300, 1152)
ROUNDS = {1: 8, 300: 2, 1152: 2}
LONGEST_S = 8  # a run that would take longer is left out
Product = Callable[[Tensor], Tensor]


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale.contiguous()


def _row_steps(x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    step = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True).clamp(min=1e-12) / steps
    return (x / step).round_(), step


def as_float32(weight: Tensor) -> Product:
    return lambda x: F.linear(x, weight)


def as_bfloat16(weight: Tensor) -> Product:
    half = weight.bfloat16()
    return lambda x: F.linear(x.bfloat16(), half).float()


def as_dynamic(engine: str, reduced: bool) -> Callable[[Tensor], Product]:
    """torch's dynamic quantised linear layer: one scale for all rows."""

    def make(weight: Tensor) -> Product:
        values, scale = _int8(weight)
        torch.backends.quantized.engine = engine
        zeros = torch.zeros(len(values), dtype=torch.long)
        stored = torch._make_per_channel_quantized_tensor(values, scale, zeros, 0)
        packed = torch.ops.quantized.linear_prepack(stored, None)
        return lambda x: torch.ops.quantized.linear_dynamic(x, packed, reduced)

    return make


def as_qlinear(steps: int) -> Callable[[Tensor], Product]:
    """oneDNN's qlinear, unsigned activations of each row's own scale, so many steps on either side."""

    def make(weight: Tensor) -> Product:
        values, scale = _int8(weight)
        packed = torch.ops.onednn.qlinear_prepack(values, None)
        zeros = torch.zeros(len(values), dtype=torch.int32)

        def multiply(x: Tensor) -> Tensor:
            whole, step = _row_steps(x, steps)
            told = (whole.add_(steps + 1).to(torch.uint8), 1.0, steps + 1, packed, scale, zeros, None, 1.0, 0)
            return torch.ops.onednn.qlinear_pointwise(*told, torch.float32, "none", [], "").mul_(step)

        return multiply

    return make


def as_weight_only(weight: Tensor) -> Product:
    """torch's _weight_int8pack_mm: 8-bit weights, bfloat16 activations."""
    values, scale = _int8(weight)
    half = scale.bfloat16()
    return lambda x: torch._weight_int8pack_mm(x.bfloat16(), values, half).float()


def as_int_mm(weight: Tensor) -> Product:
    """torch's _int_mm."""
    values, scale = _int8(weight)
    turned = values.T.contiguous()

    def multiply(x: Tensor) -> Tensor:
        whole, step = _row_steps(x, 127)
        return torch._int_mm(whole.to(torch.int8), turned) * step * scale

    return multiply


def as_torchao(weight: Tensor) -> Product:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    layer = nn.Linear(weight.shape[1], len(weight), bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    quantize_(layer, Int8DynamicActivationInt8WeightConfig())
    return layer


def as_bitsandbytes(weight: Tensor) -> Product:
    from bitsandbytes.functional import int8_linear_matmul, int8_mm_dequant, int8_vectorwise_quant

    values, scale, _ = int8_vectorwise_quant(weight.bfloat16())

    def multiply(x: Tensor) -> Tensor:
        whole, row_scale, _ = int8_vectorwise_quant(x.bfloat16())
        return int8_mm_dequant(int8_linear_matmul(whole, values), row_scale, scale).float()

    return multiply


def as_omniqa(weight: Tensor, kernel: type[Kernel] = Fbgemm) -> Int8Linear:
    stored = quantize_weight(weight)
    if stored is None:
        raise ValueError("omniqa keeps this weight in float")
    return Int8Linear(stored, kernel=kernel)


def as_finer(weight: Tensor) -> Product:
    layer = as_omniqa(weight)
    layer.finer = True
    return layer


WAYS: dict[str, Callable[[Tensor], Product]] = {
    "float32": as_float32,
    "bfloat16": as_bfloat16,
    "dynamic linear, FBGEMM, 8 bits": as_dynamic("fbgemm", reduced=False),
    "dynamic linear, FBGEMM, 7 bits": as_dynamic("fbgemm", reduced=True),
    "dynamic linear, oneDNN, 8 bits": as_dynamic("onednn", reduced=False),
    "dynamic linear, oneDNN, 7 bits": as_dynamic("onednn", reduced=True),
    "onednn.qlinear by row, 8 bits": as_qlinear(127),
    "onednn.qlinear by row, 7 bits": as_qlinear(63),
    "_weight_int8pack_mm, bfloat16": as_weight_only,
    "_int_mm by row": as_int_mm,
    "torchao, dynamic int8": as_torchao,
    "bitsandbytes, int8": as_bitsandbytes,
    "omniqa: FBGEMM by row": as_omniqa,
    "omniqa: oneDNN by row": partial(as_omniqa, kernel=OneDnn),
    "omniqa: lm_head": as_finer,
}


def rates(ways: dict[str, Callable[[Tensor], Product]], width: int, out: int) -> dict[str, list[float]]:
    """GFLOP/s by way, one for each of ROWS; NaN for what would take too long."""
    weight = torch.randn(out, width) / width**0.5
    made = {name: make(weight) for name, make in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in made}
    for rows in ROWS:
        x, best = torch.randn(rows, width), dict.fromkeys(made, float("inf"))
        flop = 2.0 * rows * width * out
        for name, product in made.items():
            slow = found[name] and flop / 1e9 > LONGEST_S * found[name][-1]
            if slow or (rows == 1 and name in ("_int_mm by row",)):  # which takes more than 16 rows
                best[name] = float("nan")
            else:
                product(x)
        for _ in range(ROUNDS[rows]):
            for name, product in made.items():
                if best[name] == best[name]:
                    start = time.thread_time()
                    product(x)
                    best[name] = min(best[name], time.thread_time() - start)
        for name, seconds in best.items():
            found[name].append(flop / seconds / 1e9)
    return found


def nano_products() -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and input of every linear layer of nano while it answers; of the first 400 rows."""
    qa = omniqa.load("nano", device="cpu", dtype="float32")
    seen: dict[nn.Linear, Tensor] = {}

    def keep_input(layer: nn.Linear, given: tuple[Tensor], _: Tensor) -> None:
        seen.setdefault(layer, given[0].reshape(-1, layer.in_features)[:400].clone())

    for module in qa.model.module.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(keep_input)
    qa.ask(CLIP, next(iter(CHECKS)), "omnidrop", 0.3)
    for layer, x in seen.items():
        yield layer.weight.detach(), x


def error(product: Product, x: Tensor, weight: Tensor) -> float:
    right = F.linear(x, weight)
    return float((product(x) - right).norm() / right.norm())


def errors(make: Callable[[Tensor], Product], real: list[tuple[Tensor, Tensor]]) -> list[str]:
    """On normal numbers, nano's median and worst, and on ones."""
    weight, x = torch.randn(1280, 1280) / 1280**0.5, torch.randn(32, 1280)
    ones = torch.ones(64, 64)
    found = [error(make(weight), x, weight)]
    shares = [error(make(weight), x, weight) for weight, x in real if len(x) > 16]
    found += [statistics.median(shares), max(shares), error(make(ones), ones[:32], ones)]
    return [f"{100 * share:.2f}" for share in found]


def usable(names: list[str]) -> dict[str, Callable[[Tensor], Product]]:
    """The ways that work here; why another does not is said."""
    found = {}
    for name, make in WAYS.items():
        if names and not any(part in name for part in names):
            continue
        try:
            make(torch.ones(64, 64))(torch.ones(32, 64))
        except (ImportError, RuntimeError, NotImplementedError, AttributeError, TypeError) as trouble:
            print(f"not measured: {name} ({type(trouble).__name__}: {str(trouble).splitlines()[0]})")
        else:
            found[name] = make
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="part of a way's name; repeats")
    given = parser.parse_args()
    simplefilter("ignore")
    torch.set_num_threads(1)
    with torch.inference_mode():
        ways = usable(given.only)
        real = list(nano_products())
        by_shape = {shape: rates(ways, *shape) for shape in SHAPES}
        print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, ±{activation_steps()} steps\n")
        titles = " | ".join(f"{width}→{out}" for width, out in SHAPES)
        what = "GFLOP/s of one core at 1 / 300 / 1152 rows"
        print(f"| {what} | {titles} | error, %: normal | nano, median | worst | ones |")
        print("|---|" + "---:|" * (len(SHAPES) + 4))
        for name, make in ways.items():
            speeds = [" / ".join(f"{rate:.0f}" for rate in by_shape[shape][name]) for shape in SHAPES]
            print(f"| {name} | {' | '.join([*speeds, *errors(make, real)])} |", flush=True)


if __name__ == "__main__":
    main()
