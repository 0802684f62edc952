"""The JSON schema of the reports, from the records and their documentation."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from enum import Enum, Flag
from typing import Any, get_args, get_type_hints

from pychrony._queries import query_for, read_list, read_optional
from pychrony._serialize import COMPUTED, UNITS, word
from pychrony.models import REPORTS

_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def _meanings(record: type[Any]) -> dict[str, str]:
    """What the docstring of a record says of each attribute."""
    text = inspect.getdoc(record) or ""
    block = text.partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*\n(?:        .*\n?)*)", block, re.M)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def _value(name: str, kind: Any) -> dict[str, Any]:
    if name == "reference_id":
        return {"type": "string", "pattern": "^[0-9A-F]{8}$"}
    optional = type(None) in get_args(kind)
    if optional:
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if issubclass(kind, Flag):
        return {"type": "array", "items": {"enum": [word(one) for one in kind]}}
    if issubclass(kind, Enum):
        words = [word(one) for one in kind]
        return {"anyOf": [{"enum": words}, {"pattern": "^unknown_[0-9]+$"}]}
    never = name in ("last_sample_ago", "last_ke_ago")
    null = optional or never or kind is float
    return {"type": [_TYPES[kind], "null"] if null else _TYPES[kind]}


def _record(record: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(record)
    meanings = _meanings(record)
    properties: dict[str, Any] = {}
    names = [one.name for one in fields(record)]
    if "address" in names:
        properties["name"] = {
            "description": "Its address, or the reference ID of a reference clock.",
            "type": "string",
        }
        names = [name for name in names if name != "name"]
    for name in names:
        unit = UNITS.get(name)
        key = f"{name}_{unit}" if unit else name
        properties[key] = {
            "description": meanings.get(name, ""),
            **_value(name, hints[name]),
        }
    for name, key in COMPUTED.items():
        if hasattr(record, name):
            member = getattr(record, name)
            function = member.fget if isinstance(member, property) else member
            properties[key] = {
                "description": (inspect.getdoc(member) or "").partition("\n")[0],
                **_value(name, get_type_hints(function)["return"]),
            }
    return {"type": "object", "required": list(properties), "properties": properties}


def schema() -> str:
    """Return the schema of what ``python -m pychrony --json`` prints."""
    reports: dict[str, Any] = {}
    for report in REPORTS.values():
        reference: dict[str, Any] = {"$ref": f"#/$defs/{report}"}
        how = query_for(report).func
        if how is read_list:
            reference = {"type": "array", "items": reference}
        elif how is read_optional:
            reference = {"anyOf": [reference, {"type": "null"}]}
        reports[report] = reference
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What python -m pychrony --json prints",
        "type": "object",
        "required": ["format", "time", "address", "reports", "errors"],
        "properties": {
            "format": {
                "description": "Number of this format; new properties do not change it",
                "const": 1,
            },
            "time": {
                "description": "When it was read, by the clock of this machine (UTC).",
                "type": "string",
                "format": "date-time",
            },
            "address": {
                "description": "The address of the chronyd; null if none replied.",
                "type": ["string", "null"],
            },
            "reports": {"type": "object", "properties": reports},
            "errors": {
                "description": "Why a report is missing, by its name.",
                "type": "object",
                "additionalProperties": {"type": "string"},
            },
        },
        "$defs": {report: _record(record) for record, report in REPORTS.items()},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
