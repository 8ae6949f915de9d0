"""The base of all mappings in the file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """Base of all mappings in the file: unknown keys are errors, null means "not set here"."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        defer_build=True,  # the whole is built once, when the first file is read, and not each part before it
    )

    @model_validator(mode="before")
    @classmethod
    def drop_nulls(cls, data: Any) -> Any:
        """Leave out known keys that are null; a section that is null is empty."""
        if data is None:
            return {}
        if not isinstance(data, dict):
            return data
        known = cls.model_fields
        return {key: value for key, value in data.items() if value is not None or key not in known}
