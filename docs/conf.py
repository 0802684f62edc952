"""Sphinx: ``nox -s docs`` builds these pages, without the network."""

from __future__ import annotations

import re
import shutil
import sys
from enum import Enum
from importlib.metadata import version as version_of
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "tests" / "tools")]

project = "pychrony"
version = version_of(project).partition("+")[0]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "options",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"{project} {version}"
html_theme_options = {
    "source_repository": "https://github.com/arunderwood/pychrony",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_static_path = ["_static"]
html_css_files = ["pychrony.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 120
add_module_names = False

# What is referred to of the standard library, so that no network is needed.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(HERE / "python.inv")),
}

doctest_global_setup = """
import scene
playing = scene.scene()
playing.__enter__()
"""
doctest_global_cleanup = "playing.__exit__(None, None, None)"


def shorten(_: object, what: str, name: str, *rest: str) -> tuple[str, str]:
    """Leave out of a signature what is said elsewhere."""
    *_, signature, returns = rest
    if what == "class" and not re.search("Connection|Daemon|Clock", name):
        return "", ""  # its attributes follow, and pychrony makes it
    if what == "function" and name.startswith("pychrony.get_"):
        # The types are those of ChronyConnection.
        signature = re.sub(r": [^,=]+(= )?", r"\1", signature).replace("= ", "=")
    if name.endswith("query_many"):  # a name of the type checker's only
        signature, returns = (
            text.replace("Address", "str | os.PathLike[str]")
            for text in (signature, returns)
        )
    return signature, returns


def complete(_: object, _what: str, name: str, obj: Any, *rest: list[str]) -> None:
    """Put the type of an attribute, or the value of a member, beside its name."""
    lines = rest[-1]
    if name.startswith("pychrony.get_"):
        del lines[1:]  # the page says it once for all of these functions
    text = "\n".join(lines)
    if isinstance(obj, type) and issubclass(obj, Enum):
        text = re.sub(
            r"^\.\. attribute:: (\w+)$",
            lambda match: f"{match[0]}\n   :value: {obj[match[1]].value!r}",
            text,
            flags=re.M,
        )
    else:
        text = re.sub(
            r"^(\.\. attribute:: \w+\n)((?:(?!\.\. ).*\n)*?)\n( +:type: .*)$",
            r"\1\3\n\2",
            text,
            flags=re.M,
        )
    lines[:] = text.replace("pychrony.models.", "").split("\n")


def publish(app: Sphinx, error: Exception | None) -> None:
    """Copy the files that pages link to; they are files without Sphinx, too."""
    if error is None and app.builder.name == "html":
        for file in [*HERE.glob("*.json"), *HERE.glob("prometheus/*")]:
            target = Path(app.outdir, file.relative_to(HERE))
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", publish)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", complete, priority=900)
