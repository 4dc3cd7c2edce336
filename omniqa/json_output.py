"""JSON as omniqa writes it: always valid, whatever the numbers."""

import json
import math
from typing import Any


def dumps(value: Any, *, ascii_only: bool = True, indent: int | None = None, sort_keys: bool = False) -> str:
    """The text of a value.

    JSON has no NaN and no infinity: a number that is not finite becomes null, which everywhere in omniqa's output means
    that a number is not known.

    Args:
        ascii_only: characters beyond ASCII are escaped.
        indent: spaces a level; None writes one line.
    """
    options: dict[str, Any] = {"ensure_ascii": ascii_only, "indent": indent, "sort_keys": sort_keys}
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # rare, so that what is ordinary is walked through only once
        return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
