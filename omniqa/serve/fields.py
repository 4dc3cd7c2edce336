"""Fields of a JSON object from a client, taken one by one; what is of the wrong type is refused by its name."""

from typing import Any

from omniqa.serve.errors import bad_request


class Fields:
    """The fields of one object, each taken once.

    Args:
        value: what should be an object.
        name: what it is called in errors; empty is the request itself.
    """

    def __init__(self, value: Any, name: str = "") -> None:
        if not isinstance(value, dict):
            raise bad_request(f"{name or 'The request'} must be an object.", name or None)
        self._left = dict(value)
        self._prefix = f"{name}." if name else ""

    def name(self, key: str) -> str:
        """What a field is called in errors."""
        return f"{self._prefix}{key}"

    def raw(self, key: str) -> Any:
        """The field as it is; None if it is not there."""
        return self._left.pop(key, None)

    def text(self, key: str) -> str | None:
        """A text; None if it is null or not there."""
        value = self.raw(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool | None:
        """True or false; None if it is null or not there."""
        value = self.raw(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def number(self, key: str) -> float | None:
        """A number below 2⁶³; None if it is null or not there."""
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:  # nor NaN
            raise self._wrong(key, "a number")
        return value

    def whole(self, key: str) -> int | None:
        """A whole number; None if it is null or not there."""
        value = self.number(key)
        if value is None:
            return None
        if value != int(value):
            raise self._wrong(key, "a whole number")
        return int(value)

    def items(self, key: str) -> list[Any]:
        """A list; empty if it is null or not there."""
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value

    def inner(self, key: str) -> "Fields":
        """An object; empty if it is null or not there."""
        value = self.raw(key)
        return Fields({} if value is None else value, self.name(key))

    def rest(self) -> dict[str, Any]:
        """All fields that were not taken yet."""
        left, self._left = self._left, {}
        return left

    def end(self) -> None:
        """Refuse what is left: a misspelt option would else be ignored."""
        if self._left:
            name = self.name(next(iter(self._left)))
            raise bad_request(f"There is no field {name}.", name)

    def _wrong(self, key: str, what: str) -> Exception:
        return bad_request(f"{self.name(key)} must be {what}.", self.name(key))
