"""The file's reference as Markdown, from the sections that check it: docstrings, kinds, defaults. Pure.

What a key takes is said in the words of the error that a wrong value gets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from stoker.config.bentoml_schema import BentoFileSection, BentoServiceSection, OverridesSection
from stoker.config.fields import Kind
from stoker.config.schema import FileSection, ServiceSection

HEAD = """\
# The file, key by key

Made from the program by `stoker schema --markdown`; do not edit. [Editors](#editors) complete and check
these keys. Every key may be left out; `null` means "not said here". Unknown keys are errors, except those
that begin with `x-` at the top or in a service: they are a place for anchors.

Sizes are written `16Gi`, `512M` or in bytes, cores `2`, `0.5` or `500m`, times `30s`, `1m30s`, `250ms` or in
seconds. `${VAR}` and `${VAR:-default}` are filled from the daemon's environment, `$$` is a plain dollar.

Layers, lowest first: built-in defaults, instance type, code, `include`, the file, `conf.d/*.yaml` beside it,
the profile `NAME.PROFILE.yaml`, `STOKER__...` variables, `--set`, live overrides. Mappings merge, `envs` by
name, other lists replace. `stoker explain PATH` shows what each layer says, `stoker config --sources` all.

A secret is a file of that name in `secrets/` beside the file, among the credentials of the systemd unit
(`LoadCredential=`), or in `secrets/` of the state directory; `STOKER_SECRETS_DIR` names a place before these.
All files are watched: a changed one is checked and then in force, a changed secret brings new workers.
"""
EDITORS = """\
## Editors

    stoker schema > stoker.schema.json

and, for the YAML language server (VS Code, Neovim, Helix ...), as the first line of the file:

    # yaml-language-server: $schema=stoker.schema.json
"""
BENTO = """\
# A BentoML deployment file

is taken as it stands, and so is what `bentoml deployment get` prints. Beside the keys above it may have
these. What means nothing on a box of one's own is named in one notice.
"""


def markdown() -> str:
    """The whole page."""
    own = [line for title, model in _sections(FileSection, "The top") for line in _section(title, model)]
    bento: list[str] = []
    pairs = (
        ("The top, beside Stoker's keys", BentoFileSection, FileSection),
        ("services.NAME, beside Stoker's keys", BentoServiceSection, ServiceSection),
        ("services.NAME.config_overrides", OverridesSection, None),
    )
    for title, model, under in pairs:
        bento += _section(title, model, frozenset(under.model_fields if under else ()))
    return "\n".join([HEAD, *own, EDITORS, BENTO, *bento]).rstrip() + "\n"


def _sections(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each section with its path, in the order of the file."""
    yield title, model
    prefix = "" if model is FileSection else f"{title}."
    for name, field in model.model_fields.items():
        below = _section_of(field.annotation)
        if below is not None:
            inner = "NAME" if _is_mapping(field.annotation) else ""
            yield from _sections(below, f"{prefix}{name}{'.' if inner else ''}{inner}")


def _section(title: str, model: type[BaseModel], without: frozenset[str] = frozenset()) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{_one_line(model.__doc__)}\n"
    yield "| key | takes | default | |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if name not in without:
            takes = _cell(_takes(field.annotation, field.metadata))
            yield f"| `{name}` | {takes} | {_default(field)} | {_cell(_one_line(field.description))} |"
    yield ""


def _takes(annotation: Any, metadata: Any = ()) -> str:
    """What a value must be, in words."""
    kind = next((each for each in metadata if isinstance(each, Kind)), None)
    if kind is not None:
        return _words(kind)
    if hasattr(annotation, "__metadata__"):
        return _takes(annotation.__origin__, annotation.__metadata__)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        section = issubclass(annotation, BaseModel)
        return "a section" if section else "text" if annotation is str else "anything"
    return _takes_of(get_origin(annotation), [each for each in get_args(annotation) if each is not NoneType])


def _takes_of(origin: Any, arguments: list[Any]) -> str:
    """What one of these forms must be: a choice, a list, a mapping, or something that may be absent."""
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin is dict and arguments[1] is Any:
        return "a mapping"
    before = {list: "a list: ", dict: "a mapping: "}.get(origin, "")
    return before + _takes(arguments[-1]) if arguments else "anything"


class _Nothing:
    """A value that no kind takes."""

    def __str__(self) -> str:
        return ""


def _words(kind: Kind) -> str:
    """The words of the kind's own complaint."""
    try:
        kind.check(_Nothing())
    except PydanticCustomError as error:
        return error.message().removeprefix("must be ").partition("; found")[0]
    return "anything"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel) or value in ([], {}, ()) or isinstance(value, list):
        return ""
    plain = int(value) if isinstance(value, float) and value.is_integer() else value
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds, alone or in a list or mapping."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for each in get_args(annotation) if (found := _section_of(each))), None)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_mapping(each) for each in get_args(annotation))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
