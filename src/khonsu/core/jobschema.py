"""The JSON Schema of job files, for editors: what `parse_jobs` reads, with the keys that people write.

It is made from the fields of the model, so that it cannot lag behind. It leaves out the fields' own names
(`memory_bytes`), which are for programs, and what is not supported yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Final, get_args

import attrs

from khonsu.core.about import NAME, About, about_of
from khonsu.core.brief import form
from khonsu.core.job import PORT_MAX, Constraint, Group, Job, Port, Task
from khonsu.core.mistakes import Kind, origin_of
from khonsu.core.reader import attributes_of, default_of
from khonsu.core.schema import DIALECT, Schema, table_schema, type_schema

_QUANTITIES: Final[Mapping[str, Schema]] = {
    "_seconds": {"type": ["number", "string"], "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", "minimum": 0},
    "_bytes": {"type": ["integer", "string"], "pattern": r"^\d+(\.\d+)? *([KMGTP]iB|[kKMGTP]?B)?$", "minimum": 0},
    "_millis": {"type": ["number", "string"], "pattern": r"^\d+(\.\d+)?$", "minimum": 0},
}
_PORT_NUMBER: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": PORT_MAX}
_PORT: Final[Schema] = {
    "anyOf": [
        {"const": "dynamic"},
        _PORT_NUMBER,
        {"type": "object", "properties": {"host": _PORT_NUMBER, "task": _PORT_NUMBER}, "additionalProperties": False},
    ]
}

_REFERENCES: Final[Mapping[Kind, Schema]] = {
    Group: {"$ref": "#/$defs/group"},
    Task: {"$ref": "#/$defs/task"},
    Constraint: {"$ref": "#/$defs/constraint"},
    tuple[Port, ...]: {"type": "object", "additionalProperties": _PORT},
}


def job_schema(configs: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of job files.

    Args:
        configs: The schemas of drivers' configs by the driver's name; other drivers' configs are any table.

    """
    rules = {"allOf": [_driver_rule(name, schema) for name, schema in configs.items()]} if configs else {}
    task, group, job = (_table(cls) for cls in (Task, Group, Job))
    # At the top of a file, the keys of group and task may stand beside those of the job.
    top = {**task["properties"], **group["properties"], **job["properties"]}
    del top["tasks"]
    one = {
        "type": "object",
        "properties": top,
        "additionalProperties": False,
        "oneOf": [{"required": ["name", "groups"]}, {"required": ["name", "driver", "config"]}],
        **rules,
    }
    several = {"jobs": {"type": "array", "items": {"$ref": "#/$defs/job"}, "minItems": 1}}
    return {
        "$schema": DIALECT,
        "title": "Khonsu job file",
        "if": {"required": ["jobs"]},
        "then": {"type": "object", "properties": several, "additionalProperties": False},
        "else": {"$ref": "#/$defs/job"},
        "$defs": {
            "job": one,
            "group": group,
            "task": {**task, **rules},
            "constraint": {"anyOf": [{"type": "string"}, _table(Constraint)]},
        },
    }


def _driver_rule(name: str, schema: Schema) -> Schema:
    """Return the rule that a driver's config is as its schema says."""
    inner = {key: value for key, value in schema.items() if key != "$schema"}
    given = {"properties": {"driver": {"const": name}}, "required": ["driver"]}
    return {"if": given, "then": {"properties": {"config": inner}}}


def _table(cls: type) -> Schema:
    """Return the schema of the table of a class, by the keys that people write."""
    fields = [(each, about_of(each) or About("")) for each in attributes_of(cls)]
    supported = [(each, facts) for each, facts in fields if not facts.later]
    properties = {str(each.alias): _property(each, facts) for each, facts in supported}
    required = [str(each.alias) for each, _ in supported if each.default is attrs.NOTHING]
    return table_schema(properties, required, cls.__doc__)


def _property(attribute: attrs.Attribute[Any], facts: About) -> Schema:
    quantity = next((schema for end, schema in _QUANTITIES.items() if attribute.name.endswith(end)), None)
    schema = dict(quantity) if quantity is not None else _typed(attribute.type, facts)
    if facts.none_text is not None:
        schema = {"anyOf": [schema, {"const": facts.none_text}]}
    default = default_of(attribute)
    if isinstance(default, (str, int, float)):
        schema["default"] = form(attribute.name, default)
    return {"description": facts.text, **schema}


def _typed(kind: Kind, facts: About) -> Schema:
    """Return the schema of a field's type, within the limits of the field. TOML has no null: a key is left out."""
    if kind in _REFERENCES:
        return dict(_REFERENCES[kind])
    parts = [part for part in get_args(kind) if part is not NoneType]
    if NoneType in get_args(kind) and len(parts) == 1:
        return _typed(parts[0], facts)
    if kind is int:
        limits = {"minimum": facts.low, "maximum": facts.high}
        return {"type": "integer", **{key: limit for key, limit in limits.items() if limit is not None}}
    if kind is str and facts.choices:
        return {"enum": list(facts.choices)}
    if kind is str and facts.name:
        return {"type": "string", "pattern": f"^{NAME.pattern}$"}
    if origin_of(kind) is Mapping:
        return {"type": "object", "additionalProperties": _typed(parts[1], facts)}
    if origin_of(kind) is tuple:
        return {"type": "array", "items": _typed(parts[0], About(""))}
    return type_schema(kind, _table)
