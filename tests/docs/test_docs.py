"""What the pages of docs/ show is what happens."""

from __future__ import annotations

import doctest
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import generated
import pytest
import scene
from pages import blocks
from provision import Parts

import pychrony
from pychrony import __main__ as reports
from pychrony import (
    _address,
    _advice,
    _library,
    _queries,
    _wheel,
    check,
    models,
    testing,
)
from pychrony.testing import ScriptedDaemon, make_smoothing, make_source
from pychrony.testing import __main__ as recorder

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text()
    for path in sorted(DOCS.rglob("*.rst"))
    if "_build" not in path.parts
}
CHECK = DOCS.joinpath("check.rst").read_text()


def examples(block: str) -> list[tuple[list[str], list[str]]]:
    """The words of each command in a block, and what it is shown to print."""
    found: list[tuple[list[str], list[str]]] = []
    for example in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, *shown = example.rstrip("\n").split("\n")
        found.append((shlex.split(command), shown))
    return found


def commands(page: str) -> list[tuple[list[str], list[str]]]:
    """The commands in all blocks of a page."""
    return [
        example
        for language, _, body in blocks(page)
        if language == "console"
        for example in examples(body)
    ]


def test_check_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sources = [make_source(address=f"192.0.2.{number}") for number in (1, 2)]
    monkeypatch.chdir(tmp_path)
    with ScriptedDaemon(tracking=scene.clock(0.000012), sources=sources) as daemon:
        monkeypatch.setattr(_address, "LOCAL", (daemon.address,))
        for (program, *options), shown in commands(CHECK):
            if program == "python":
                assert reports.main(options[2:]) == 0
                capsys.readouterr()
                continue
            assert program == "check_chrony"
            here = [option.replace("/var/lib/node_exporter/", "") for option in options]
            assert check.main(here) == check.OK
            output = re.sub(r"\b2[01]\d\.\ds", "200.0s", capsys.readouterr().out)
            assert not shown or output.splitlines() == shown
        assert Path("chrony.prom").read_text().startswith("# HELP ")


def test_check_in_other_programs() -> None:
    """Options that a unit and monitoring systems give to the command."""
    pages = CHECK + PAGES["howto/nagios.rst"]
    lines: list[str] = re.findall(r"/opt/pychrony/bin/check_chrony (.+)", pages)
    assert any("--wait" in line for line in lines)
    assert any("$ARG1$" in line for line in lines)
    for line in lines:
        # As soon after the start of chronyd as it can follow a source.
        young = make_source(reachability=0o7)
        tracking = scene.clock(0.0)
        with ScriptedDaemon(tracking=tracking, sources=[young]) as daemon:
            values = {"$ARG1$": "-w-1:1", "$HOSTADDRESS$": daemon.address}
            options = [values.get(option, option) for option in line.split()]
            if daemon.address not in options:  # it is for the chronyd of a machine
                options.append(daemon.address)
            assert check.main(options) == check.OK


def test_field_that_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line that CONTRIBUTING shows, in a report that lacks the field."""
    page = DOCS.with_name("CONTRIBUTING.rst").read_text()
    (line,) = re.findall(r"code-block:: python\n\n   (.*)\n", page)
    code = (
        f"@dataclass(frozen=True, repr=False, eq=False)\nclass New(Smoothing):\n {line}"
    )
    names = dict(vars(models))
    exec(compile(code, "models.py", "exec", dont_inherit=True), names)
    monkeypatch.setitem(models.REPORTS, names["New"], "smoothing")
    with ScriptedDaemon(smoothing=make_smoothing(wander=0.5)) as daemon:
        with pychrony.ChronyConnection(daemon.address) as connection:
            record: Any = connection._read(
                partial(_queries.read_single, record=names["New"])
            )
    assert (record.wander, record.temperature) == (0.5, None)


# The others have tests of their own.
PLAYED = [
    name for name in PAGES if "/" in name or name in ("index.rst", "tutorial.rst")
]

# What needs the network, root, or something else than Python.
ELSEWHERE = {
    *("apt", "ausearch", "diff", "dnf", "docker", "git", "journalctl", "make"),
    *("nox", "pip", "pypi-attestations", "python3", "sha256sum", "systemctl", "unzip"),
}


@pytest.mark.parametrize("page", [name for name in PLAYED if ">>>" in PAGES[name]])
def test_python_examples(page: str) -> None:
    with scene.scene():
        failed, attempted = doctest.testfile(
            str(DOCS / page), module_relative=False, optionflags=doctest.ELLIPSIS
        )
    assert attempted and not failed


@pytest.mark.parametrize("page", [name for name in PLAYED if "::" in PAGES[name]])
def test_commands_on_a_page(
    page: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Files are written and commands run in the order of the page."""
    monkeypatch.chdir(tmp_path)
    # Else the settings of this project hold where the directory is inside of it.
    Path("pytest.ini").touch()
    with scene.scene() as daemons:
        local = daemons["localhost"]
        shown_as = {
            local.address: "127.0.0.1:323",
            "/run/nobody/": "/run/chrony/",
        }
        status: int | None = 0
        for language, caption, body in blocks(PAGES[page]):
            if re.fullmatch(r"\w+\.(py|txt)", caption):
                here = body.replace('"127.0.0.1"', repr(local.address))
                Path(caption).write_text(here)
            for words, shown in examples(body) if language == "console" else ():
                status = play(words, local, status)
                output, complaint = capfd.readouterr()
                if ">" in words:
                    Path(words[-1]).write_text(output)
                    output = ""
                output = re.sub(r"\b2[01]\d\.\ds", "200.0s", output + complaint)
                for real, name in shown_as.items():
                    output = output.replace(real, name)
                assert not shown or same(shown, output), output


def play(words: list[str], local: ScriptedDaemon, status: int | None) -> int | None:
    """Do what a command does; return its exit status, or None if it has none here."""
    words, environment = bare(words)
    program, *options = os.path.basename(words[0]), *words[1:]
    if program == "check_chrony" and "-V" not in options:
        return check.main(options)
    if options[:2] == ["-m", "pychrony.testing"]:
        return recorder.main(options[2 : options.index(">")])
    if program == "check_chrony":
        options = ["-m", "pychrony.check", *options]
    if program == "pytest":
        options = ["-m", "pytest", *options]
    if program in ("check_chrony", "pytest", "python"):
        command = [sys.executable, *options]
        return subprocess.run(command, env=environment, check=False).returncode
    if options == ["stop", "chronyd"]:
        local.stop()
    elif options == ["start", "chronyd"]:
        local.start()
    elif options == ["$?"]:
        print(status)
    else:
        assert program in ELSEWHERE
    return None


def bare(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """A command without sudo and env, and its environment."""
    environment = dict(os.environ)
    while words[0] in ("sudo", "-u", "nagios", "env") or "=" in words[0]:
        name, equals, value = words[0].partition("=")
        if equals:
            environment[name] = value
        words = words[1:]
    return words, environment


def same(shown: list[str], output: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output("\n".join(shown), output, flags)


def test_check_in_units() -> None:
    pattern = r"(?:ExecStart|command\[\w+\])=/opt/pychrony/bin/check_chrony (.+)"
    lines = re.findall(pattern, "\n".join(PAGES[name] for name in PLAYED))
    assert lines
    with scene.scene():
        for line in lines:
            assert check.main(shlex.split(line)) == check.OK


def test_configurations_of_chronyd(parts: Parts, tmp_path: Path) -> None:
    """The real chronyd reads them; what only a newer one knows, ours does."""
    found = 0
    for page in PAGES.values():
        for _, caption, body in blocks(page):
            if caption == "chrony.conf (4.7)":
                directive, *names = body.split()
                assert directive == "opencommands"
                assert ScriptedDaemon(open_commands=names).open_commands == {*names}
            elif caption == "chrony.conf":
                found += 1
                path = tmp_path / "conf"
                path.write_text(body)
                subprocess.run(
                    [parts.chronyd, "-p", "-f", path],
                    env={**os.environ, "LD_LIBRARY_PATH": parts.library_path},
                    check=True,
                )
    assert found


def test_figures_of_the_picture_of_speed() -> None:
    """What it says to those who cannot see it."""
    text = " ".join(PAGES["speed.rst"].split())
    tables = json.loads(DOCS.joinpath("bench.json").read_text())["tables"]
    row = tables["tracking"]["rows"]["all on one core"]
    for who in ("C", "raw sockets", "pychrony 2.0.3", "pychrony"):
        assert f" {who} {row[who]['typical']:.1f}" in text
    assert f"its asyncio {row['pychrony asyncio']['typical']:.1f} microseconds" in text


def test_how_to_get_libchrony() -> None:
    page = PAGES["howto/library.rst"]
    for advice in _library._GET_IT.values():  # pyright: ignore[reportPrivateUsage]
        assert f"``{advice}``" in page
    assert f"$ {_wheel.BUILD.removeprefix('build it: ')}\n" in page
    by_hand = _wheel._by_hand("manylinux_2_28_x86_64")  # pyright: ignore[reportPrivateUsage]
    assert f"$ {by_hand}\n" in page


def test_image_and_pod() -> None:
    """Their commands are those of this package, and the mount is the right one."""
    found = {
        caption: body for _, caption, body in blocks(PAGES["howto/containers.rst"])
    }
    image = found["Dockerfile"]
    assert "RUN python -m pychrony.library install\n" in image
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", image, re.M)
    pod = found["pod.yaml"]
    (arguments,) = re.findall(r"args: (.*)", pod)
    command = [*json.loads(entry), *json.loads(arguments), "--help"]
    command[0] = sys.executable
    subprocess.run(command, check=True, capture_output=True)
    assert _address.LOCAL[0] in arguments
    for key in ("mountPath", "path"):
        assert f" {key}: {_advice.DIRECTORY}\n" in pod


def test_commands_of_the_package_are_listed() -> None:
    package = Path(pychrony.__file__).parent
    modules = {path.parent.name for path in package.glob("*/__main__.py")}
    modules.add("__main__")
    for path in package.glob("[!_]*.py"):
        if '__name__ == "__main__"' in path.read_text():
            modules.add(path.stem)
    listed = re.findall(r":: pychrony\.(\w+)", PAGES["reference/commands.rst"])
    assert {*listed} == modules


@pytest.mark.parametrize(
    ("page", "module"),
    [("api", pychrony), ("testing", testing)],
    ids=["api", "testing"],
)
def test_public_names_are_in_the_reference(page: str, module: ModuleType) -> None:
    text = PAGES[f"reference/{page}.rst"]
    listed = re.findall(
        r"^(?:\.\. auto\w+::|\.\. data::| {9}) (?:\S+\.)?(\w+)$", text, re.M
    )
    assert {*listed} - {"plugin"} == {*module.__all__}


def test_contributing_names_what_there_is() -> None:
    page = DOCS.with_name("CONTRIBUTING.rst").read_text()
    modules = {path.name for path in DOCS.with_name("pychrony").glob("*.py")}
    assert modules - {"__init__.py"} == modules & {*re.findall(r"``(\w+\.py)``", page)}
    for path in re.findall(r"\btests/[\w/]+\.py", page):
        assert DOCS.parent.joinpath(path).exists(), path


@pytest.mark.parametrize("file", generated.FILES, ids=lambda file: file.name)
def test_generated_file_is_current(file: Path) -> None:
    assert file.read_text() == generated.FILES[file](), "run nox -s generate"


def test_examples_of_the_factories() -> None:
    names = {**vars(pychrony.models), **vars(testing)}
    for name in testing.__all__:
        if name.startswith("make_"):
            document = inspect.getdoc(names[name]) or ""
            code = document.partition("Examples::\n\n")[2]
            assert code
            exec(textwrap.dedent(code), names)
