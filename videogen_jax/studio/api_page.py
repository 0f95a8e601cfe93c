"""HTML documentation of the HTTP interface, rendered from its OpenAPI description."""

import json
from html import escape
from typing import Any

_METHODS = ("get", "post", "patch", "delete")
_TYPE_NAMES = {
    "null": "null",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
}


def api_page(openapi: dict[str, Any]) -> str:
    """Render an OpenAPI 3.1 description, as FastAPI generates it, as an HTML page.

    Args:
      openapi: the description; its operations each have a summary and a tag, by which the page groups them.

    Returns:
      a whole HTML document.
    """
    schemas = openapi["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    for path, operations in openapi["paths"].items():
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                groups.setdefault(operation["tags"][0], []).append(_operation(path, method, operation, schemas))
    info = openapi["info"]
    parts = [
        f"<section id={name}><h2>{name.capitalize()}</h2>{''.join(items)}</section>" for name, items in groups.items()
    ]
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in groups)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: HTTP interface</title>"
        '<link rel="stylesheet" href="/api.css"></head><body><header>'
        f"<h1>{escape(info['title'])} <small>HTTP interface, version {escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])} The same for programs: <a href='/openapi.json'>openapi.json</a>. "
        "Whatever goes wrong is answered with a status from 400 and "
        '<code>{"error": "one sentence"}</code>. With a token set, send it as '
        "<code>Authorization: Bearer TOKEN</code>.</p>"
        f'<nav><a href="/">The studio</a>{links}</nav></header><main>{"".join(parts)}</main></body></html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"] if operation.get("description") else []
    fields = [
        (value["name"], value["schema"], value.get("description", ""), value["required"])
        for value in operation.get("parameters", ())
    ]
    if fields:
        parts.append(_table("Parameters", fields, schemas))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(_content(f"Body, {kind}", content, schemas))
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items() if status.startswith("2") else ():
            parts.append(_content(f"Answer {status}, {kind}", content, schemas))
    return (
        f"<details><summary><b class={method}>{method.upper()}</b> <code>{escape(path)}</code> "
        f"<span>{escape(operation['summary'])}</span></summary><div>{''.join(parts)}</div></details>"
    )


def _content(title: str, content: dict[str, Any], schemas: dict[str, Any]) -> str:
    schema = _resolve(content.get("schema", {}), schemas)
    if "properties" not in schema:
        return f"<h3>{escape(title)}</h3>"
    required = schema.get("required", ())
    fields = [
        (name, field, field.get("description", ""), name in required) for name, field in schema["properties"].items()
    ]
    return _table(title, fields, schemas)


def _table(title: str, fields: list[tuple[str, dict, str, bool]], schemas: dict[str, Any]) -> str:
    rows = []
    for name, field, description, required in fields:
        optional = "" if required else " <small>optional</small>"
        examples = "".join(
            f" For example <code>{escape(json.dumps(value))}</code>." for value in field.get("examples", ())
        )
        rows.append(
            f"<tr><td><code>{escape(name)}</code>{optional}</td><td>{_type(field, schemas)}</td>"
            f"<td>{escape(description)}{examples}</td></tr>"
        )
    return f"<h3>{escape(title)}</h3><table>{''.join(rows)}</table>"


def _type(field: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Describe the values that a field accepts, in HTML; the fields of a nested object are listed by name only."""
    field = _resolve(field, schemas)
    if "anyOf" in field:
        return " or ".join(_type(choice, schemas) for choice in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in field["enum"])
    if field.get("type") == "array":
        parts = field.get("prefixItems")
        return (
            "[" + ", ".join(_type(part, schemas) for part in parts) + "]"
            if parts
            else f"list of {_type(field['items'], schemas)}"
        )
    if field.get("type") == "object":
        names = ", ".join(f"<code>{escape(name)}</code>" for name in field.get("properties", ()))
        return f"object of {names}" if names else "object"
    bounds = [
        f"{words} {field[key]}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in field
    ]
    return " ".join([_TYPE_NAMES.get(field.get("type", ""), "anything"), *bounds])


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Follow a schema's `$ref`, if it has one."""
    reference = schema.get("$ref")
    return schemas[reference.rsplit("/", 1)[-1]] if reference else schema
