"""`omniqa methods`: the ways to drop tokens, and their options. Free of torch."""

from typing import Annotated, Any

import typer

from omniqa.cli import options, tables
from omniqa.cli.console import console
from omniqa.cli.values import complete_method
from omniqa.media.sampling import ClipOptions
from omniqa.models.families import HUB_7B, decoder_layers
from omniqa.pipeline.token_estimate import tokens_of
from omniqa.pruning import registry
from omniqa.pruning.budget import Unreachable

_CLIP = (252, 448), 60.0  # height and width in pixels, seconds: the clip whose floor is shown
_LEAST = 0.001  # a retention below every floor worth the name


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Show this method alone, with its options.", autocompletion=complete_method)
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the methods that drop tokens: what each does, its paper, its floor, its options.

    The floor is the lowest retention that a method reaches, here on one minute of 448x252 with sound in the 7B model.
    """
    found = [_described(one) for one in ([name] if name is not None else registry.names())]
    if as_json:
        console.print_json(found)
    elif name is None:
        columns = (tables.name("method"), "what it does", tables.number("floor"), tables.text("options", rank=1))
        console.results(
            columns,
            [
                (one["name"], one["summary"], one["floor"], ", ".join(option["name"] for option in one["options"]))
                for one in found
            ],
        )
        console.remark("`omniqa methods NAME` shows a method's paper and its options")
    else:
        _show(found[0])


def _show(method: dict[str, Any]) -> None:
    console.remark(f"{method['name']}: {method['summary']}")
    console.result(f"paper: {method['paper'] or 'none'}")
    console.remark(f"floor: {method['floor']}")
    if method["options"]:
        columns = (tables.name("option"), tables.text("takes"), tables.name("default"), "what it does")
        rows = [(one["name"], one["takes"], one["default"], one["help"]) for one in method["options"]]
        console.results(columns, rows)
        first = method["options"][0]
        console.remark(f"write it as --method {method['name']}:{first['name']}={first['default']}")


def _described(name: str) -> dict[str, Any]:
    method = registry.get(name)
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "floor": f"{_floor(name):.2f}",
        "options": [
            {"name": one.name, "takes": one.words, "default": one.default_text, "help": one.help}
            for one in registry.options(name)
        ],
    }


def _floor(name: str) -> float:
    size, seconds = _CLIP
    pruner = registry.create(name, _LEAST)
    try:
        plan = pruner.plan(tokens_of(size, seconds, seconds, ClipOptions()), decoder_layers(HUB_7B))
    except Unreachable as error:
        return error.floor
    return float(plan.retention)
