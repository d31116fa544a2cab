"""The OpenAPI 3.1 document, made of the table of endpoints and of the shapes that it names."""

from functools import cache
from typing import Any

import msgspec

from fanwire._engine import __version__
from fanwire.admin.problems import CODES, CONTENT_TYPE, ProblemBody
from fanwire.admin.table import ENDPOINTS, LIVE, Operation

ALWAYS = (
    "bad_request",
    "invalid_value",
    "no_token",
    "foreign_origin",
    "method_not_allowed",
    "busy",
    "internal",
    "stopped",
)
"""What may be wrong with every request."""
OF_BODIES = ("bad_json", "too_big", "not_json")
REFUSED = ("no_token", "foreign_origin", "bad_request")
OF_KEYS = ("key_in_use", "key_reused")
REFERENCE = "#/components/schemas/{name}"


@cache
def document() -> bytes:
    """As JSON."""
    shapes = [*dict.fromkeys(shape for one in ENDPOINTS for shape in (one.takes, one.answer)), ProblemBody]
    _, components = msgspec.json.schema_components(shapes, ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for one in ENDPOINTS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, components)
    paths[LIVE] = {"get": _live()}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "fanwire admin side",
                "version": __version__,
                "description": "Who is connected, what lags and why, and what to do about it: docs/admin.md.",
            },
            "paths": paths,
            "security": [{"token": []}, {}],
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _operation(one: Operation, components: dict[str, Any]) -> dict[str, Any]:
    is_acting = one.method == "POST"
    operation: dict[str, Any] = {"operationId": f"{one.room}_{one.call}", "summary": one.summary}
    if is_acting:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _named(one.takes)}}}
    parameters = [] if is_acting else _parameters(components[one.takes.__name__])
    if one.is_once:
        key = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    if parameters:
        operation["parameters"] = parameters
    codes = [*ALWAYS, *one.codes, *(OF_BODIES if is_acting else ()), *(OF_KEYS if one.is_once else ())]
    operation["responses"] = {
        "200": {"description": "As asked.", "content": {"application/json": {"schema": _named(one.answer)}}},
        **_problems(codes),
    }
    return operation


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _queried(kind)}
        for name, kind in schema["properties"].items()
    ]


def _queried(kind: dict[str, Any]) -> dict[str, Any]:
    """In a query nothing is null: what is not meant is left out."""
    kinds = [one for one in kind.get("anyOf", ()) if one != {"type": "null"}]
    kind = {name: value for name, value in kind.items() if name not in ("anyOf", "default" if kinds else "anyOf")}
    if "enum" in kind:
        kind["enum"] = [one for one in kind["enum"] if one is not None]
        if kind.get("default", "") is None:
            del kind["default"]
    return {**kind, **(kinds[0] if len(kinds) == 1 else {})}


def _problems(codes: list[str]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code], []).append(code)
    content = {CONTENT_TYPE: {"schema": _named(ProblemBody)}}
    return {
        str(status): {"description": f"`code` is {' or '.join(dict.fromkeys(some))}.", "content": content}
        for status, some in sorted(by_status.items())
    }


def _live() -> dict[str, Any]:
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    return {
        "operationId": "live",
        "summary": "An event stream of what is named: stats, log, tail:CHANNEL.",
        "parameters": [{"name": "channel", "in": "query", "required": True, "schema": names, "explode": True}],
        "responses": {
            "200": {"description": "Until the client leaves.", "content": {"text/event-stream": {}}},
            **{
                str(CODES[code]): {"description": "In plain text."}
                for code in ("no_token", "foreign_origin", "bad_request")
            },
        },
    }


def _named(shape: type[Any]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(name=shape.__name__)}
