"""The directive ``options``: what a command can be given, from its own parser."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from importlib import import_module

from sphinx.util.docutils import SphinxDirective

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from docutils.nodes import Node
    from sphinx.application import Sphinx


def parser(module: str) -> argparse.ArgumentParser:
    """Return what parses the arguments of ``python -m MODULE``."""
    for part in ("", "._cli", ".__main__"):
        with suppress(ImportError):
            command: Any = import_module(module + part)
            if hasattr(command, "_parser"):
                found: argparse.ArgumentParser = command._parser()
                return found
    raise LookupError(f"{module} has no parser")


def _options(found: argparse.ArgumentParser) -> Iterator[str]:
    """Return each argument as a definition in reStructuredText."""
    for action in found._actions:
        if action.dest == "help":
            continue
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from (f"``{name}``", f"   {sub.description}", "")
                yield from (f"   {line}" for line in _options(sub))
            continue
        value = ""
        if action.nargs != 0:
            value = str(action.metavar or action.dest)
            if action.choices is not None and not action.metavar:
                value = "{" + ",".join(map(str, action.choices)) + "}"
        names = action.option_strings or [""]
        text = re.sub(r"([*`|_\\])", r"\\\1", action.help or "")
        default: Any = action.default
        shown = f"{default:g}" if isinstance(default, float) else default
        text = re.sub(r"%\(default\)[gs]", f"default {shown}", text)
        text = text.replace("%%", "%")
        terms = (f"``{f'{name} {value}'.strip()}``" for name in names)
        yield from (", ".join(terms), f"   {text[:1].upper()}{text[1:]}.", "")


class Options(SphinxDirective):
    """``.. options:: pychrony.check``: a definition list of its arguments."""

    required_arguments = 1

    def run(self) -> list[Node]:
        lines = "\n".join(_options(parser(self.arguments[0])))
        return self.parse_text_to_nodes(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("options", Options)
    return {"parallel_read_safe": True}
