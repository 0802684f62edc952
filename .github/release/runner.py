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

from .tools import ReleaseError, git, say

# What expressions see, by its whole name, such as needs.build.result.
Context = dict[str, str]
# A condition of ours is one of Python but for these.
AS_PYTHON = {"!cancelled()": "True", "&&": " and ", "||": " or "}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def fill(value: object, context: Context) -> str:
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda m: context[m[1]], str(value))


def holds(condition: str, context: Context) -> bool:
    text = re.sub(r"\w+\.[\w.]+", lambda m: repr(context[m[0]]), condition)
    for theirs, ours in AS_PYTHON.items():
        text = text.replace(theirs, ours)
    return bool(eval(text, {"__builtins__": {}}))  # noqa: S307 - it is of our own YAML


@dataclass
class Runner:
    """One machine that runs the jobs of a workflow in the order of the file.

    Attributes:
        work: A clone with the tag checked out.
        context: What expressions see in all jobs.
        env: The environment of all scripts.
        changes: What is different here in the texts of the scripts.
    """

    work: Path
    context: Context
    env: Mapping[str, str]
    changes: Mapping[str, str]

    def run(self, workflow: Path) -> list[str]:
        """Return the jobs that were skipped; a script that fails is an error."""
        told: Context = {}
        skipped = []
        for name, job in load(workflow)["jobs"].items():
            needs = job.get("needs", ())
            mine = {k: v for k, v in told.items() if k.split(".")[1] in needs}
            results = {mine[f"needs.{need}.result"] for need in needs}
            go = holds(job.get("if", str(results <= {"success"})), mine)
            if go and "container" not in job:
                say(f"\n{name}")
                # What one job has installed is left for the next.
                git("-C", str(self.work), "clean", "-ffdxq", "-e.venv", "-e.nox")
                outputs = self.steps(job["steps"], {**self.context, **mine})
                for key, text in job.get("outputs", {}).items():
                    told[f"needs.{name}.outputs.{key}"] = fill(text, outputs)
            told[f"needs.{name}.result"] = "success" if go else "skipped"
            skipped += [] if go else [name]
        return skipped

    def steps(self, steps: list[Any], context: Context) -> Context:
        outputs = {}
        for step in steps:
            given = {k: fill(v, context) for k, v in step.get("with", {}).items()}
            action = step.get("uses", "").partition("@")[0]
            if "run" in step:
                for key, value in self.script(step, context).items():
                    outputs[f"steps.{step['id']}.outputs.{key}"] = value
            elif action.startswith("./"):
                inputs = {f"inputs.{key}": value for key, value in given.items()}
                inner = load(self.work / action / "action.yml")["runs"]["steps"]
                self.steps(inner, {**self.context, **inputs})
            elif action == "actions/checkout":
                paths = given.get("sparse-checkout", "/*").split()
                only = ("sparse-checkout", "set", "--no-cone", *paths)
                git("-C", str(self.work), *only)
            elif action == "actions/upload-artifact":
                self.upload(given["name"], given["path"])
            elif action == "actions/download-artifact":
                stored = self.work.parent / "artifacts" / given["name"]
                shutil.copytree(stored, self.work / given["path"], dirs_exist_ok=True)
        return outputs

    def upload(self, name: str, path: str) -> None:
        stored = self.work.parent / "artifacts" / name
        stored.mkdir(parents=True)
        for file in self.work.glob(f"{path}*" if path.endswith("/") else path):
            shutil.copy(file, stored)

    def script(self, step: Any, context: Context) -> dict[str, str]:
        text = step["run"]
        for part, other in self.changes.items():
            text = text.replace(part, other)
        say("  $ " + text.strip().replace("\n", "\n    "))
        output = self.work.parent / "output"
        output.write_text("")
        own = {key: fill(value, context) for key, value in step.get("env", {}).items()}
        result = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
            cwd=self.work,
            env={**self.env, **own, "GITHUB_OUTPUT": str(output)},
            check=False,
        )
        if result.returncode:
            raise ReleaseError("a script of this job failed: see above")
        return dict(line.split("=", 1) for line in output.read_text().splitlines())
