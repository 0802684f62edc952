"""Run a step: `python -m release STEP [ARGUMENT...]`; the sessions of nox do."""

import importlib
import sys

step, *arguments = sys.argv[1:]
importlib.import_module(f"release.{step}").main(*arguments)
