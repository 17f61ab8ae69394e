"""The OpenAPI 3.1 document, made from the table of operations and the classes of the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import attrs

from khonsu.api.answers import JSON_TYPE, PROBLEM_TYPE
from khonsu.api.shapes import SHAPES, Shape
from khonsu.core.operations import OPERATIONS, QUERY_KINDS, Direction, Kind, Operation, Role
from khonsu.core.reader import attributes_of
from khonsu.core.revision import Revision
from khonsu.core.schema import DIALECT, Schema, type_schema
from khonsu.errors import all_errors
from khonsu.transports.routing import IDEMPOTENCY_HEADER, PREFIX, has_content
from khonsu.transports.wire import encode

LINES_TYPE: Final = "application/x-ndjson"
BYTES_TYPE: Final = "application/octet-stream"

_REVISION: Final[Schema] = {
    "type": "string",
    "pattern": r"^[0-9]+\.[0-9]+$",
    "description": "A point in the history of the state: TERM.NUMBER, compared as a pair.",
}

_LAST_LINE: Final[Schema] = {
    "type": "object",
    "description": "The last line of a stream that failed: why.",
    "required": ["problem"],
    "properties": {"problem": {"$ref": "#/components/schemas/Problem"}},
}

_KIND_SCHEMAS: Final[Mapping[Kind, Schema]] = {
    Kind.TEXT: {"type": "string"},
    Kind.INTEGER: {"type": "integer", "minimum": 0},
    Kind.FLAG: {"type": "boolean"},
    Kind.DURATION: {"type": "string", "examples": ["30s"]},
    Kind.TIME: {"type": "string", "format": "date-time"},
}

_PARAMETER_NOTES: Final[Mapping[str, str]] = {
    "after": "A revision: answer when something in the scope of this read is newer.",
    "wait": "For how long to wait for that, at most; then the answer is the unchanged state.",
    "cursor": "The `next` of the page before.",
    "limit": "How many items a page has at most.",
    "since": "Only what was written after this time.",
    "tail": "Only so many of the last lines.",
    "follow": "Whether to go on as more comes.",
    "types": "Only these types of events, with commas in between.",
    "stream": "`stdout`, `stderr` or `both`.",
}

_ROLES: Final[Mapping[Role, str]] = {
    Role.OPERATOR: "Needs an operator's token.",
    Role.NODE: "For agents: needs the node's own credential.",
    Role.JOIN: "For agents: needs a join token.",
    Role.ANYBODY: "",
}


@cache
def document_json() -> bytes:
    """Return the document as JSON."""
    return encode(document())


def document() -> dict[str, Any]:
    """Return the document."""
    components = _Components()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS.values():
        described = _operation(operation, SHAPES[operation.name], components)
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "Khonsu",
            "version": version("khonsu"),
            "description": "Workloads on machines. Unknown keys are ignored; what is absent is null. "
            "Refusals are problem documents (RFC 9457).",
        },
        "security": [{"token": []}],
        "paths": {**paths, **_plain_paths()},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**components.schemas, "Problem": _problem()},
            "responses": {
                "problem": {
                    "description": "A refusal: what is wrong, and what to do.",
                    "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


class _Components:
    """The schemas of classes, each once, by their names."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {"Revision": _REVISION}

    def schema(self, kind: Any) -> Schema:
        """Return the schema of a type."""
        return type_schema(kind, self._reference)

    def _reference(self, cls: type) -> Schema:
        if cls is not Revision and cls.__name__ not in self.schemas:
            self.schemas[cls.__name__] = {}  # a class may hold itself
            self.schemas[cls.__name__] = self._class(cls)
        return {"$ref": f"#/components/schemas/{cls.__name__}"}

    def _class(self, cls: type) -> Schema:
        attributes = attributes_of(cls)
        schema: Schema = {
            "type": "object",
            "description": (cls.__doc__ or "").strip().split("\n", maxsplit=1)[0],
            "properties": {attribute.name: self.schema(attribute.type) for attribute in attributes},
        }
        if required := [attribute.name for attribute in attributes if attribute.default is attrs.NOTHING]:
            schema["required"] = required
        return schema

    def fields(self, shape: Shape, operation: Operation) -> Schema:
        """Return the schema of a request's body, without what its path has."""
        if attrs.has(shape.takes):
            described = self._class(shape.takes)
            for name in operation.path_parameters:
                del described["properties"][name]
                described["required"].remove(name)
            return described
        schema: Schema = {
            "type": "object",
            "properties": {name: self.schema(kind) for name, kind in shape.takes.items()},
        }
        if shape.required:
            schema["required"] = list(shape.required)
        return schema

    def watched(self, cls: type) -> Schema:
        """Return the schema of what a read answers that can be watched: a thing, and the revision to watch from."""
        self.schema(cls)
        described = self.schemas[cls.__name__]
        if "revision" in described["properties"]:
            return self.schema(cls)
        properties = {**described["properties"], "revision": {"$ref": "#/components/schemas/Revision"}}
        return {**described, "properties": properties, "required": [*described.get("required", ()), "revision"]}

    def page(self, shape: Shape) -> Schema:
        """Return the schema of a page of items."""
        return {
            "type": "object",
            "required": ["items", "next", "revision"],
            "properties": {
                "items": {"type": "array", "items": self.schema(shape.result)},
                "next": {"type": ["string", "null"], "description": "The cursor of the next page, if there is one."},
                "revision": {"$ref": "#/components/schemas/Revision"},
            },
        }


def _operation(operation: Operation, shape: Shape, components: _Components) -> dict[str, Any]:
    result = components.page(shape) if shape.pages else components.schema(shape.result)
    if operation.watchable and not shape.pages:
        result = components.watched(shape.result)
    media_type = JSON_TYPE
    if operation.direction is Direction.DOWN:
        media_type, result = LINES_TYPE, {"anyOf": [result, _LAST_LINE]}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _ROLES[operation.role],
        "tags": [operation.name.partition(".")[0]],
        "parameters": _parameters(operation),
        "responses": {
            "200": {"description": "Done.", "content": {media_type: {"schema": result}}},
            "default": {"$ref": "#/components/responses/problem"},
        },
    }
    if operation.direction is Direction.UP:
        described["requestBody"] = {"required": True, "content": {BYTES_TYPE: {}}}
    elif has_content(operation) and operation.method != "DELETE":
        content = {JSON_TYPE: {"schema": components.fields(shape, operation)}}
        described["requestBody"] = {"required": bool(shape.required), "content": content}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in operation.path_parameters
    ]
    for name in operation.query_parameters:
        schema = _KIND_SCHEMAS[QUERY_KINDS.get(name, Kind.TEXT)]
        if name == "after" and operation.watchable:
            schema = {"$ref": "#/components/schemas/Revision"}
        note = {"description": _PARAMETER_NOTES[name]} if name in _PARAMETER_NOTES else {}
        if name == "after" and not operation.watchable:
            note = {"description": "A revision, or the id of the last event that was seen: only what came after it."}
        parameters.append({"name": name, "in": "query", "schema": schema, **note})
    if operation.once:
        parameters.append(
            {
                "name": IDEMPOTENCY_HEADER,
                "in": "header",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                "description": "Makes a repeat of this request the same request, for 24 hours.",
            }
        )
    return parameters


def _plain_paths() -> dict[str, Any]:
    """Return the paths that are no operations."""
    problem = {"$ref": "#/components/responses/problem"}

    def get(summary: str, media_type: str, **more: Any) -> dict[str, Any]:
        responses = {"200": {"description": "Done.", "content": {media_type: {}}}, "default": problem}
        return {"get": {"summary": summary, "responses": responses, **more}}

    return {
        "/healthz": get("Say that the server lives", JSON_TYPE, security=[]),
        "/readyz": get("Say whether the control plane serves", JSON_TYPE, security=[]),
        "/metrics": get("Show the metrics", "application/openmetrics-text"),
        f"{PREFIX}/openapi.json": get("Show this document", JSON_TYPE),
    }


def _problem() -> Schema:
    return {
        "type": "object",
        "description": "A refusal (RFC 9457), with what it knows beyond its message.",
        "required": ["type", "title", "status", "detail", "hint", "retryable"],
        "properties": {
            "type": {"type": "string", "enum": sorted(all_errors())},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "hint": {"type": "string", "description": "What to do."},
            "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
        },
    }
