"""The kinds of values a key of the file may have: each checks strictly, says what it wants with an
example, and knows its JSON Schema. Pure.

They stand in annotations: `Annotated[int, Whole(low=1, example=4)]`.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from stoker.config.tree import Filled, found, suggest
from stoker.config.yaml_text import resolve_scalar
from stoker.model.quantity import parse_bytes, parse_cores, parse_duration

JsonSchema = dict[str, Any]

SHELL_WORDS = frozenset({"&&", "||", "|", "&", ">", ">>", "<", "2>&1"})
_PERCENT = re.compile(r"\d{1,3}%")


def fault(message: str) -> PydanticCustomError:
    """An error whose text is complete as it stands."""
    return PydanticCustomError("stoker", "{text}", {"text": message})


def wanted(what: str, value: object) -> PydanticCustomError:
    """ "must be WHAT; found VALUE"."""
    return fault(f"must be {what}; found {found(value)}")


def plain(value: object) -> object:
    """A value from `${VAR}` as YAML would read it; any other as it is."""
    return resolve_scalar(str(value)) if isinstance(value, Filled) else value


class Kind:
    """Base of all kinds. `check` returns the checked value or raises `fault`."""

    json: ClassVar[JsonSchema] = {}

    def check(self, value: Any) -> Any:
        """Return the checked value. Raises PydanticCustomError."""
        raise NotImplementedError

    def json_schema(self) -> JsonSchema:
        """What JSON Schema says of it."""
        return dict(self.json)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return self.json_schema()


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number; 1.9 and "2" are none."""

    low: int | None = 0
    high: int | None = None
    example: int = 1

    def check(self, value: Any) -> int:
        value = plain(value)
        if type(value) is not int:
            raise wanted(f"a whole number, for example {self.example}", value)
        _bounds(value, self.low, self.high)
        return value

    def json_schema(self) -> JsonSchema:
        bounds = {"minimum": self.low, "maximum": self.high}
        return {"type": "integer", **{key: bound for key, bound in bounds.items() if bound is not None}}


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A finite number, whole or not."""

    above: float = 0
    example: float = 4

    def check(self, value: Any) -> float:
        value = plain(value)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise wanted(f"a number, for example {self.example:g}", value)
        if value <= self.above:
            raise fault(f"must be more than {self.above:g}; found {found(value)}")
        return float(value)

    def json_schema(self) -> JsonSchema:
        return {"type": "number", "exclusiveMinimum": self.above}


@dataclass(frozen=True, slots=True)
class Url(Kind):
    """The address of an HTTP server."""

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not re.match(r"https?://[^/]", value):
            raise wanted("an address such as http://127.0.0.1:9090", value)
        return value

    def json_schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^https?://[^/]"}


@dataclass(frozen=True, slots=True)
class Devices(Kind):
    """A count of GPUs: whole, or a share below 1."""

    def check(self, value: Any) -> float:
        value = plain(value)
        if type(value) not in (int, float):
            raise wanted("a number of GPUs, for example 1, or 0.25 for a share of one", value)
        count = float(value)
        if not 0 <= count <= 64 or (count > 1 and not count.is_integer()):
            message = "must be a whole number of GPUs (at most 64) or a share below 1, for example 2 or 0.5"
            raise fault(f"{message}; found {found(value)}")
        return count

    def json_schema(self) -> JsonSchema:
        whole = {"type": "integer", "minimum": 0, "maximum": 64}
        return {"anyOf": [whole, {"type": "number", "minimum": 0, "maximum": 1}]}


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """true or false; "false" is neither."""

    def check(self, value: Any) -> bool:
        value = plain(value)
        if type(value) is not bool:
            raise wanted("true or false", value)
        return value

    def json_schema(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A text, not empty, that matches `pattern` as a whole; `what` says in words what that is."""

    what: str = "text"
    example: str = ""
    pattern: str = r"(?s).+"
    limit: int = 4096
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(self.pattern))

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.limit or not self._compiled.fullmatch(value):
            raise wanted(self.what + (f", for example {self.example}" if self.example else ""), value)
        if "\0" in value:
            raise fault("must not hold a NUL character")
        return str(value)

    def json_schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": "string", "maxLength": self.limit}
        if self.pattern == r"(?s).+":
            return {**schema, "minLength": 1}
        return {**schema, "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True, slots=True)
class Variable(Kind):
    """The value of an environment variable. Numbers and booleans arrive here as they were written."""

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise wanted("text, a number, true or false", value)
        if "\0" in value:
            raise fault("must not hold a NUL character")
        return str(value)

    def json_schema(self) -> JsonSchema:
        return {"type": ["string", "number", "boolean"]}


@dataclass(frozen=True, slots=True)
class Quantity(Kind):
    """A number, or text with a unit, read by one of the parsers of `stoker.model.quantity`."""

    parse: Callable[[str | float], float]
    what: str
    pattern: str
    above_zero: bool = False

    def check(self, value: Any) -> float:
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise wanted(self.what, value)
        if isinstance(value, str) and not re.match(self.pattern, value):
            raise wanted(self.what, value)
        try:
            result = self.parse(value)
        except (ValueError, OverflowError):
            raise wanted(self.what, value) from None
        if self.above_zero and result == 0:
            raise fault(f"must be more than zero; write {self.what}")
        return result

    def json_schema(self) -> JsonSchema:
        number = {"type": "number", "exclusiveMinimum" if self.above_zero else "minimum": 0}
        return {"anyOf": [number, {"type": "string", "pattern": self.pattern}]}


_DIGITS = r"[0-9]+(?:\.[0-9]+)?"
_SECONDS_PATTERN = rf"^\s*(?:(?:{_DIGITS}(?:ms|s|m|h|d))+|{_DIGITS})\s*$"
_DURATION = "a duration, for example 30s, 5m, 250ms or a number of seconds"
SECONDS = Quantity(parse_duration, _DURATION, _SECONDS_PATTERN)
SECONDS_ABOVE_ZERO = Quantity(parse_duration, _DURATION, _SECONDS_PATTERN, above_zero=True)
SIZE = Quantity(
    parse_bytes,
    "a size, for example 512Mi, 16Gi or a number of bytes",
    rf"^\s*{_DIGITS}\s*(?:[kKMGTP]|[KMGTP]i)?B?\s*$",
    above_zero=True,
)
CORES = Quantity(
    parse_cores,
    "a number of cores, for example 2, 0.5 or 500m",
    rf"^\s*{_DIGITS}m?\s*$",
    above_zero=True,
)


@dataclass(frozen=True, slots=True)
class CountOrPercent(Kind):
    """A count of replicas, or a percentage of `max_replicas`."""

    def check(self, value: Any) -> int | str:
        value = plain(value)
        if type(value) is int and value >= 0:
            return value
        if isinstance(value, str) and _PERCENT.fullmatch(value) and int(value[:-1]) <= 100:
            return value
        raise wanted("a number of replicas or a percentage, for example 1 or 25%", value)

    def json_schema(self) -> JsonSchema:
        percent = {"type": "string", "pattern": "^(?:100|[0-9]{1,2})%$"}
        return {"anyOf": [{"type": "integer", "minimum": 0}, percent]}


@dataclass(frozen=True, slots=True)
class Signal(Kind):
    """A signal by name (SIGTERM, TERM) or number."""

    def check(self, value: Any) -> int:
        value = plain(value)
        if isinstance(value, str):
            name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
            number = getattr(signal.Signals, name, None)
            if number is None:
                names = [one.name for one in signal.Signals]
                raise fault(
                    f"must be a signal, for example SIGTERM or 15; found {found(value)}" + _like(name, names)
                )
            return int(number)
        if type(value) is int and 1 <= value <= 64:
            return value
        raise wanted("a signal, for example SIGTERM or 15", value)

    def json_schema(self) -> JsonSchema:
        names = {one.name for one in signal.Signals}
        short = {name.removeprefix("SIG") for name in names}
        number = {"type": "integer", "minimum": 1, "maximum": 64}
        return {"anyOf": [{"enum": sorted(names | short)}, number]}


@dataclass(frozen=True, slots=True)
class Umask(Kind):
    """Octal digits as text. A bare number is refused: in YAML `0027` is twenty-seven."""

    def check(self, value: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
            raise wanted('a mask of octal digits in quotes, for example "0027"', value)
        return int(value, 8)

    def json_schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^0?[0-7]{3}$"}


@dataclass(frozen=True, slots=True)
class EnvFile(Kind):
    """The path of a file of variables, alone or as {path: FILE, required: false}."""

    def check(self, value: Any) -> Any:
        wish = "the path of a file, for example web.env or {path: web.env, required: false}"
        if isinstance(value, str) and value and "\0" not in value:
            return value
        if not isinstance(value, dict) or not isinstance(value.get("path"), str) or not value["path"]:
            raise wanted(wish, value)
        odd = sorted(value.keys() - {"path", "required"})
        if odd:
            raise fault(f"has the unknown key {odd[0]}; write {wish}")
        if not isinstance(value.get("required", True), bool):
            raise fault(f"`required` must be true or false; found {found(value['required'])}")
        return value

    def json_schema(self) -> JsonSchema:
        properties = {"path": {"type": "string", "minLength": 1}, "required": {"type": "boolean"}}
        section = {
            "type": "object",
            "properties": properties,
            "required": ["path"],
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": "string", "minLength": 1}, section]}


@dataclass(frozen=True, slots=True)
class Argv(Kind):
    """A command: a list of words, or one text that is split as a shell would, without a shell.

    Numbers and booleans in the list arrive here as they were written.
    """

    def check(self, value: Any) -> tuple[str, ...]:
        example = "for example python -m app --port {port}, or a list of words"
        if isinstance(value, str):
            words = _split(value)
        elif isinstance(value, list):
            words = [_word(word) for word in value]
        else:
            raise wanted(f"a command, {example}", value)
        if not words or not words[0]:
            raise fault(f"is empty; write a command, {example}")
        if any("\0" in word for word in words):
            raise fault("must not hold a NUL character")
        return tuple(words)

    def json_schema(self) -> JsonSchema:
        word = {"type": ["string", "number", "boolean"]}
        return {
            "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": word, "minItems": 1}]
        }


def _like(name: str, names: list[str]) -> str:
    hint = suggest(name, names)
    return hint if "did you mean" in hint else ""


def _bounds(value: int, low: int | None, high: int | None) -> None:
    if low is not None and value < low:
        raise fault(f"must be {low} or more; found {value}")
    if high is not None and value > high:
        raise fault(f"must be {high} or less; found {value}")


def _word(word: object) -> str:
    if not isinstance(word, str):
        raise fault(f"each word must be text; found {found(word)}")
    return str(word)


def _split(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise fault(f"cannot be split into words: {str(error).lower()}") from None
    for word in words:
        if word in SHELL_WORDS:
            message = f'no shell runs this, so "{word}" would be an argument'
            raise fault(f'{message}; write ["sh", "-c", "..."] if a shell is meant')
    return words
