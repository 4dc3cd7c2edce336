"""What omniqa writes as JSON is JSON, whatever the numbers."""

import json

import pytest

from omniqa.jobs.jsonl_store import JSON_LINES
from omniqa.json_output import dumps


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [lambda x: x, lambda x: [1.5, (x, {"a": x})], lambda x: {"a": {"b": [x]}, "c": 2}])
def test_a_number_that_is_not_finite_is_null(number, shape):
    text = dumps({"value": shape(number)})
    assert json.loads(text, parse_constant=refuse) == json.loads(dumps({"value": shape(None)}))
    assert json.loads(JSON_LINES.encode({"value": shape(number)}), parse_constant=refuse)


def test_all_else_is_as_json_has_it():
    value = {"b": [1, 2.5, True, None, "é"], "a": {"deep": []}}
    assert dumps(value) == json.dumps(value)
    assert dumps(value, ascii_only=False, indent=1, sort_keys=True) == json.dumps(
        value, ensure_ascii=False, indent=1, sort_keys=True
    )
