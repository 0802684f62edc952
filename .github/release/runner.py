"""What GitHub does with a workflow, as far as its scripts notice it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .tools import ReleaseError, say

Context = dict[str, Any]
# What an expression consists of, and how Python writes it.
TOKEN = re.compile(r"'[^']*'|!cancelled\(\)|[\w-]+(?:\.[\w-]+)+|&&|\|\||!(?!=)")
AS_PYTHON = {"&&": " and ", "||": " or ", "!": " not ", "!cancelled()": "True"}
# What the scripts of one job install is left for the next one.
KEPT = (".venv", ".nox", ".locked")


def evaluate(expression: str, context: Context) -> Any:
    """The value of an expression; a name that nothing has set is refused."""

    def translate(match: re.Match[str]) -> str:
        if match[0][0] == "'" or match[0] in AS_PYTHON:
            return AS_PYTHON.get(match[0], match[0])
        found: Any = context
        for part in match[0].split("."):
            if part not in found:
                raise ReleaseError(f"{match[0]} is used, but nothing sets it")
            found = found[part]
        return repr(found)

    return eval(TOKEN.sub(translate, expression), {"__builtins__": {}})  # noqa: S307 - of our own YAML


def fill(value: Any, context: Context) -> str:
    """A text with its expressions evaluated, and a truth value as GitHub writes it."""

    def write(match: re.Match[str]) -> str:
        return fill(evaluate(match[1].strip(), context), context)

    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"\$\{\{(.+?)\}\}", write, text)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@dataclass
class Runner:
    """One machine that runs the jobs of a workflow in the order of the file.

    Attributes:
        clone: The repository as GitHub has it.
        place: An empty directory.
        github, matrix: What expressions see under these names.
        env: The environment of all scripts.
        instead: Of a job and a part of its script, what to run before it, or in its
            place if that does not end with a newline.
    """

    clone: Path
    place: Path
    github: Context
    matrix: Context
    env: Mapping[str, str]
    instead: Mapping[tuple[str, str], str]

    def run(self, workflow: Path) -> dict[str, str]:
        """The result of each job; a script that fails is an error."""
        needs: Context = {}
        for name, job in load(workflow)["jobs"].items():
            mine = {need: needs[need] for need in job.get("needs", ())}
            done = all(need["result"] == "success" for need in mine.values())
            go = evaluate(job["if"], {"needs": mine}) if "if" in job else done
            needs[name] = {"result": "success" if go else "skipped", "outputs": {}}
            say(f"\n{name}{'' if go else ': skipped'}")
            if go and "container" not in job:
                context = {"needs": mine, "matrix": self.matrix, "steps": {}}
                self.work = self.place / "work"
                self.clear()
                self.steps(name, job["steps"], {**context, "github": self.github})
                for key, text in job.get("outputs", {}).items():
                    needs[name]["outputs"][key] = fill(text, context)
        return {name: need["result"] for name, need in needs.items()}

    def clear(self) -> None:
        for name in KEPT:
            if (self.work / name).exists():
                (self.work / name).rename(self.place / name)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def steps(self, job: str, steps: list[Context], context: Context) -> None:
        for step in steps:
            given = {k: fill(v, context) for k, v in step.get("with", {}).items()}
            action = step.get("uses", "").partition("@")[0]
            if "if" in step and not evaluate(step["if"], context):
                continue
            if "run" in step:
                outputs = self.script(job, step, context)
                context["steps"][step.get("id")] = {"outputs": outputs}
            elif action.startswith("./"):
                declared = load(self.work / action / "action.yml")
                inputs = {
                    k: v.get("default", "") for k, v in declared["inputs"].items()
                }
                github = {**self.github, "action_path": f"{self.work}/{action}"}
                inner = {"inputs": {**inputs, **given}, "github": github, "steps": {}}
                self.steps(job, declared["runs"]["steps"], inner)
            elif action == "actions/checkout":
                self.checkout(given)
            elif action.endswith("load-artifact"):
                self.artifact(action, given["name"], given["path"])

    def script(self, job: str, step: Context, context: Context) -> dict[str, str]:
        text = fill(step["run"], context)
        for (where, part), other in self.instead.items():
            if where == job and part in text:
                text = other + text if other.endswith("\n") else other
        for line in text.splitlines():
            say(f"  $ {line}")
        output = self.place / "output"
        output.write_text("")
        own = {key: fill(value, context) for key, value in step.get("env", {}).items()}
        result = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
            cwd=self.work / step.get("working-directory", ""),
            env={**self.env, **own, "GITHUB_OUTPUT": str(output)},
            check=False,
        )
        if result.returncode:
            raise ReleaseError(f"the job {job} failed: see above")
        lines = [line.partition("=") for line in output.read_text().splitlines()]
        return {name: value for name, _, value in lines}

    def checkout(self, given: Mapping[str, str]) -> None:
        depth = [] if given.get("fetch-depth") == "0" else ["--depth=1"]
        url, ref = f"file://{self.clone}", self.github["ref_name"]
        git = ("git", "-c", "advice.detachedHead=false", "clone", "--quiet", *depth)
        subprocess.run([*git, "--branch", ref, url, str(self.work)], check=True)
        if paths := given.get("sparse-checkout", "").split():
            command = ("git", "sparse-checkout", "set", "--no-cone", *paths)
            subprocess.run(command, cwd=self.work, check=True)
        for name in KEPT:
            if (self.place / name).exists():
                (self.place / name).rename(self.work / name)

    def artifact(self, action: str, name: str, path: str) -> None:
        stored = self.place / "artifacts" / name
        if action == "actions/download-artifact":
            if not stored.exists():
                raise ReleaseError(f"no job has uploaded the artifact {name}")
            shutil.copytree(stored, self.work / path, dirs_exist_ok=True)
            return
        shutil.rmtree(stored, ignore_errors=True)
        for file in self.work.glob(f"{path}*" if path.endswith("/") else path):
            stored.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, stored)
        if not stored.exists():
            raise ReleaseError(f"there is nothing at {path} to upload as {name}")
