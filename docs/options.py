"""The directive ``options``: what a command can be given, from its own parser."""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from unittest import mock

from sphinx.util.docutils import SphinxDirective

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from docutils.nodes import Node
    from sphinx.application import Sphinx


class _Parser(BaseException):  # the commands survive any Exception
    """Brings the parser out of the command."""


def parser(module: str) -> argparse.ArgumentParser:
    """Return what parses the arguments of ``python -m MODULE``."""

    def give(found: argparse.ArgumentParser, *_: object) -> None:
        raise _Parser(found)

    command: Any = import_module(module)
    if not hasattr(command, "main"):
        command = import_module(f"{module}.__main__")
    with mock.patch.object(argparse.ArgumentParser, "parse_args", give):
        try:
            command.main([])
        except _Parser as bearer:
            found: argparse.ArgumentParser = bearer.args[0]
            return found
    raise LookupError(f"{module} has no parser")


def _options(found: argparse.ArgumentParser) -> Iterator[str]:
    """Return each argument as a definition in reStructuredText."""
    for action in found._actions:
        if isinstance(action, argparse._HelpAction):
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
        text = text.replace("%(default)s", f"default {action.default}")
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
