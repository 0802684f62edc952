"""The files that are generated from the code; nox -s generate writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import architecture_picture
import check_tables
import metrics_table
import public_api
import reports_schema

import pychrony

ROOT = Path(__file__).parents[2]

FILES: dict[Path, Callable[[], str]] = {
    ROOT / name: make
    for name, make in {
        "docs/check-items.txt": check_tables.items,
        "docs/check-states.rst": check_tables.states,
        "docs/explanation/architecture.svg": architecture_picture.draw,
        "docs/prometheus-metrics.txt": metrics_table.table,
        "docs/reports.schema.json": reports_schema.schema,
        "tests/core/api.txt": public_api.text,
    }.items()
}

if __name__ == "__main__":
    pychrony.library_path()  # else the error would be written into the pages
    for file, make in FILES.items():
        file.write_text(make())
