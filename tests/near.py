"""Comparing what two runs computed."""

import pytest


def near(value):
    """`value`, equal to another whose floats differ by rounding: 1e-4 of them, or 1e-6.

    Two runs whose tensors lie at other addresses may sum in another order, so their floats need not be the same bits.
    """
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True)
    if isinstance(value, dict):
        return {key: near(one) for key, one in value.items()}
    return [near(one) for one in value] if isinstance(value, list) else value
