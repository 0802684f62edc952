"""Draws docs/explanation/architecture.svg from the imports in pychrony/."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pychrony

PACKAGE = Path(pychrony.__file__).parent

_WIDTH, _ROW, _HEIGHT, _GAP = 1000, 88, 42, 16

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
  text {{ font: 19px monospace; fill: #1f2328; text-anchor: middle }}
  .paper {{ fill: #fff; stroke: none }}
  rect {{ fill: #e8f1fb; stroke: #2f6fb3 }}
  rect.private {{ fill: #f4f4f2; stroke: #8a8a84 }}
  path {{ fill: none; stroke: #8a8a84 }}
  path.late {{ stroke-dasharray: 4 4 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6e6e6 }}
    .paper {{ fill: #131416 }}
    rect {{ fill: #17293d; stroke: #5b9be0 }}
    rect.private {{ fill: #232326; stroke: #85858a }}
  }}
</style>
<rect class="paper" width="{width}" height="{height}"/>
"""


@cache
def modules() -> dict[str, list[Path]]:
    """The modules of the package and their files; a package in it counts as one."""
    found: dict[str, list[Path]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(name, []).append(file)
    del found["_cdef"]  # makes _libchrony, and is imported by nobody
    return found


@cache
def imports(module: str) -> dict[str, bool]:
    """The modules that one imports, and whether at its start."""
    found: dict[str, bool] = {}
    for file in modules()[module]:
        package = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
        # pychrony itself names there what it imports by importlib.
        late_types = module == "__init__"
        for node, early in _statements(ast.parse(file.read_text()), late_types):
            for name in node.names:
                full = name.name
                if isinstance(node, ast.ImportFrom):
                    source = "." * node.level + (node.module or "")
                    full = f"{resolve_name(source, package)}.{full}"
                path = full.split(".")
                if path[0] == "pychrony":
                    other = path[1] if path[1:] and path[1] in modules() else "__init__"
                    found[other] = found.get(other, False) or early
    found.pop(module, None)
    return found


def _statements(
    node: ast.AST, late_types: bool, early: bool = True
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, early
            continue
        here = early and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            if not late_types:
                continue
            here = False
        yield from _statements(child, late_types, here)


@cache
def below(module: str) -> frozenset[str]:
    """All modules that one imports, also by others."""
    direct = imports(module)
    return frozenset(direct).union(*map(below, direct))


@cache
def _row(module: str) -> int:
    return 1 + max(
        (_row(one) for one in modules() if module in imports(one)), default=-1
    )


def _box(module: str) -> int:
    """The width of its box, for a monospaced font of 19 pixels."""
    return 24 + 12 * len(_name(module))


def _name(module: str) -> str:
    return "pychrony" if module == "__init__" else module


def _places() -> dict[str, tuple[int, int]]:
    """Where each module stands: below all that import it, near to them."""
    places: dict[str, tuple[int, int]] = {}

    def middle(module: str) -> float:
        above = [x for one, (x, _) in places.items() if module in imports(one)]
        return sum(above) / len(above) if above else 0

    for number in range(1 + max(map(_row, modules()))):
        row = sorted((one for one in modules() if _row(one) == number), key=middle)
        free = _WIDTH - sum(map(_box, row)) - _GAP * (len(row) + 1)
        margin = free // (2 * len(row))
        # Not all in columns: lines would run behind boxes.
        x = _GAP + (number % 3 - 1) * min(60, margin)
        for module in row:
            x += margin
            places[module] = x + _box(module) // 2, _ROW * number + _ROW // 2
            x += _box(module) + margin + _GAP
    return places


def draw() -> str:
    places = _places()
    height = _ROW // 2 + max(y for _, y in places.values())
    lines = [_HEAD.format(width=_WIDTH, height=height)]
    for module, (x, y) in places.items():
        for other, early in imports(module).items():
            if any(other in below(between) for between in imports(module)):
                continue
            to_x, to_y = places[other][0], places[other][1] - _HEIGHT // 2
            kind = "" if early else ' class="late"'
            bend = _ROW // 2
            lines.append(
                f'<path{kind} d="M{x} {y + _HEIGHT // 2} '
                f'C{x} {y + bend} {to_x} {to_y - bend} {to_x} {to_y}"/>\n'
            )
    for module, (x, y) in places.items():
        kind = (
            ' class="private"'
            if module.startswith("_") and module != "__init__"
            else ""
        )
        box = _box(module)
        lines.append(
            f'<rect{kind} x="{x - box // 2}" y="{y - _HEIGHT // 2}" width="{box}" '
            f'height="{_HEIGHT}" rx="5"/>'
            f'<text x="{x}" y="{y + 6}">{_name(module)}</text>\n'
        )
    return "".join([*lines, "</svg>\n"])
