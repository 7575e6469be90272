"""The pages of docs/interactive, HTML and JavaScript as they are, stand beside those that Sphinx makes."""

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

SOURCES = shutil.ignore_patterns("*.py", "*.c", "__pycache__", ".*")  # what the pages are made from


def copy(app: Sphinx, exception: Exception | None) -> None:
    folder = Path(app.srcdir, "interactive")
    if exception is None and folder.is_dir():
        shutil.copytree(folder, Path(app.outdir, "interactive"), ignore=SOURCES, dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True}
