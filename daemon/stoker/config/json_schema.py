"""JSON Schema (draft 2020-12) of the file, from the models that check it. Pure.

It accepts what the loader accepts in a plain file: `envs` as mapping or list, numbers or quantities,
null for "not set here", `${VAR}` where a value could stand.
"""

from __future__ import annotations

from typing import Any

from stoker.config.bentoml_schema import BentoFileSection
from stoker.config.schema import FileSection
from stoker.config.section import Section

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NOTES = frozenset({"description", "default", "examples"})
_REFERENCE = {"$ref": "#/$defs/Reference"}
_NULL = {"type": "null"}
_VARIABLES = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "value"],
        "properties": {
            "name": {"type": "string"},
            "value": {"type": ["string", "number", "boolean", "null"]},
            "stage": {"enum": ["all", "build", "runtime", None]},
        },
    },
}


def json_schema() -> dict[str, Any]:
    """Return the schema as a JSON document, for editors and other tools.

    A file that names a bento is checked by the stricter rules of those; one without may be part of one
    (`bentoml deployment update`).
    """
    definitions = {**_definitions(FileSection, "File"), **_definitions(BentoFileSection, "BentoFile")}
    for name in ("File", "BentoFile", "ServiceSection", "BentoServiceSection"):
        definitions[name]["patternProperties"] = {"^x-": {}}
    definitions["ServiceSection"]["properties"].pop("config_overrides")  # a bento's alone
    answer = {"$ref": "#/$defs/BentoFile", "description": "What `bentoml deployment get` prints of it."}
    definitions["BentoFile"]["properties"]["config"] = {
        "anyOf": [answer, _NULL],
        "description": answer["description"],
    }
    definitions["Reference"] = {
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
        "description": "A text with ${VAR} or ${VAR:-default}, filled from the operator's environment.",
    }
    own, bento = definitions["File"]["properties"], definitions["BentoFile"]["properties"]
    return {
        "$schema": DIALECT,
        "title": "Stoker deployment",
        "description": definitions["File"]["description"],
        "type": "object",
        "properties": {name: _described(schema, definitions) for name, schema in {**bento, **own}.items()},
        "anyOf": [{"required": ["services"]}, {"required": ["bento"]}],
        "if": {"required": ["bento"], "properties": {"bento": {"not": _NULL}}},
        "then": {"$ref": "#/$defs/BentoFile"},
        "else": {"anyOf": [{"$ref": "#/$defs/File"}, {"$ref": "#/$defs/BentoFile"}]},
        "$defs": dict(sorted(definitions.items())),
    }


def _definitions(model: type[Section], name: str) -> dict[str, dict[str, Any]]:
    """The sections of a file by name, the file itself under `name`."""
    whole = model.model_json_schema(mode="validation")
    sections: dict[str, dict[str, Any]] = {**whole.pop("$defs"), name: whole}
    for section in sections.values():
        section.pop("title", None)
        section["properties"] = {
            key: _property(key, below) for key, below in section.get("properties", {}).items()
        }
    return sections


def _described(schema: dict[str, Any], definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The words alone: a key's own, or those of the section that stands there."""
    section = schema["anyOf"][0].get("$ref", "").rpartition("/")[2]
    return {"description": schema.get("description") or definitions[section]["description"]}


def _property(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """One key: its notes, and all forms its value may have."""
    notes = {key: value for key, value in schema.items() if key in _NOTES and value is not None}
    forms = _forms({key: value for key, value in schema.items() if key not in _NOTES | {"title"}})
    if name == "envs":
        forms.append(_VARIABLES)
    elif name in ("policy", "include", "env_file") and "items" in forms[0]:
        forms.insert(0, forms[0]["items"])  # one may stand without its list
    if "$ref" in schema or any("$ref" in form for form in forms):
        notes.pop("default", None)  # the section's own keys have theirs
    return {**notes, "anyOf": [*forms, _NULL]}


def _forms(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The forms of a value without null, with a reference wherever a scalar could stand."""
    alternatives = [form for form in schema.get("anyOf", [schema]) if form != _NULL]
    forms = [_opened(form) for form in alternatives]
    scalar = all(form.get("type") not in ("object", "array") and "$ref" not in form for form in forms)
    return [*forms, _REFERENCE] if scalar else forms


def _opened(schema: dict[str, Any]) -> dict[str, Any]:
    """A list or mapping whose elements may be references; a mapping's values may also be null."""
    opened = dict(schema)
    if isinstance(schema.get("items"), dict):
        opened["items"] = _one_of(_forms(schema["items"]))
    below = schema.get("additionalProperties")
    if isinstance(below, dict):
        opened["additionalProperties"] = _one_of([*_forms(below), _NULL])
    return opened


def _one_of(forms: list[dict[str, Any]]) -> dict[str, Any]:
    return forms[0] if len(forms) == 1 else {"anyOf": forms}
