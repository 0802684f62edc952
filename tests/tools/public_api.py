"""The public API as text, so that a change of a name or a type shows in review."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pychrony
from pychrony import testing
from pychrony.testing import faults

MODULES = (pychrony, testing, faults)


def text() -> str:
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    for module in MODULES:
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            full = f"{module.__name__}.{name}"
            if is_class(thing):
                bases = ", ".join(base.__name__ for base in thing.__bases__)
                yield f"class {full}({bases})"
                yield from describe_class(thing)
            elif inspect.isfunction(thing):
                yield f"{full}{signature(thing)}"
            elif isinstance(thing, (str, dict, frozenset, ModuleType)):
                yield f"{full}: {type(thing).__name__}"
            else:  # which Python calls otherwise in each version
                yield f"{full}: alias of types"


def describe_class(thing: Any) -> Iterator[str]:
    if issubclass(thing, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in thing)
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield f"    {field.name}: {annotation(field.type)}"
    else:
        yield f"    __init__{signature(thing.__init__)}"
    for name, member in sorted(members(thing).items()):
        if name.startswith("_") and name not in ("__enter__", "__aenter__"):
            continue
        if isinstance(member, property):
            yield f"    {name}{signature(member.fget).removeprefix('(self)')}"
        elif inspect.isfunction(member):
            kind = "async " if inspect.iscoroutinefunction(member) else ""
            yield f"    {kind}{name}{signature(member)}"


def members(thing: Any) -> dict[str, Any]:
    """Its own members and those it has from pychrony."""
    return {
        name: member
        for base in reversed(thing.__mro__)
        if base.__module__.startswith("pychrony")
        for name, member in vars(base).items()
    }


def signature(function: Any) -> str:
    # Annotations are strings here and there.
    return str(inspect.signature(function)).replace("'", "")


def annotation(what: Any) -> str:
    return what.__name__ if is_class(what) else str(what)


def is_class(thing: Any) -> bool:
    # To inspect, tuple[str] is one in Python 3.10.
    return type(thing) in (type, enum.EnumMeta)
