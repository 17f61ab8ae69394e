"""JSON Schema (draft 2020-12) of a driver's config, made from its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, Union, get_args

import attrs

from khonsu.core.about import about_of
from khonsu.core.mistakes import Kind, origin_of
from khonsu.core.reader import attributes_of, default_of
from khonsu.core.records import Time

Schema: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SCALARS: Final[Mapping[Kind, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    Any: {},
    Time: {"type": "string", "format": "date-time"},
}


def config_schema(config_type: type) -> Schema:
    """Return the schema of a driver's config from its attrs class, keys by attribute name.

    Raises:
        TypeError: The class has an attribute of a type that no job file can hold.

    """
    return {"$schema": DIALECT, **_class_schema(config_type)}


def _class_schema(cls: type) -> Schema:
    properties: dict[str, Schema] = {}
    for attribute in attributes_of(cls):
        facts = about_of(attribute)
        described = {"description": facts.text} if facts is not None else {}
        properties[attribute.name] = {**described, **type_schema(attribute.type, _class_schema), **_default(attribute)}
    required = [each.name for each in attributes_of(cls) if each.default is attrs.NOTHING]
    return table_schema(properties, required, cls.__doc__)


def type_schema(kind: Kind, of_class: Callable[[type], Schema]) -> Schema:
    """Return the schema of a type, given how to make that of an attrs class.

    Raises:
        TypeError: It is a type that JSON does not have.

    """
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    origin = origin_of(kind)
    if origin in (Union, UnionType):
        return _one_of([type_schema(part, of_class) for part in get_args(kind)])
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if origin is tuple:
        return {"type": "array", "items": type_schema(get_args(kind)[0], of_class)}
    if origin is Mapping or origin is dict:
        return {"type": "object", "additionalProperties": type_schema(get_args(kind)[1], of_class)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if isinstance(kind, type) and attrs.has(kind):
        return of_class(kind)
    if hasattr(kind, "__supertype__"):
        return type_schema(kind.__supertype__, of_class)
    raise TypeError(f"a config cannot hold {kind}, only text, numbers, booleans, tuples, mappings and attrs classes")


def _one_of(schemas: list[Schema]) -> Schema:
    if all(set(schema) == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _default(attribute: attrs.Attribute[Any]) -> Schema:
    """Return the default of an attribute where it is a plain one."""
    default = default_of(attribute)
    return {"default": default} if isinstance(default, (str, int, float)) else {}


def table_schema(properties: Mapping[str, Schema], required: list[str], doc: str | None) -> Schema:
    """Return the schema of a table with these keys and no others."""
    table: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if doc:
        table["description"] = doc.strip().split("\n", maxsplit=1)[0]
    if required:
        table["required"] = required
    return table
