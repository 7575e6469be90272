"""``{benchmarks} cpu`` and ``{benchmarks} cuda``: results of `python -m benchmarks.speed` there.

Every benchmarks/results/bench_*.json becomes the page that the program itself writes, two headings deeper,
with its figures drawn from the numbers.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from benchmarks.speed import figures
from benchmarks.speed.tables import page

NONE = (
    "**Nothing has been measured on {} yet**: the checkout has no result of one, so there is no number here."
)
DEVICES = {"cpu": "a CPU", "cuda": "a GPU"}


class Benchmarks(SphinxDirective):
    """One section for each result of the device named, or a sentence that there is none."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        device = self.arguments[0]
        text = []
        for path in sorted((Path(self.env.srcdir).parent / "benchmarks" / "results").glob("bench_*.json")):
            self.env.note_dependency(path)
            result = json.loads(path.read_text())
            if result["facts"]["device"] == device:
                text.append(self._section(path, result))
        return self.parse_text_to_nodes(
            "\n\n".join(text) or NONE.format(DEVICES[device]), allow_section_headings=True
        )

    def _section(self, path: Path, result: dict[str, Any]) -> str:
        folder = Path(self.env.doctreedir, "benchmarks")
        folder.mkdir(exist_ok=True)
        here = Path(self.env.doc2path(self.env.docname)).parent
        drawn = {
            os.path.relpath(folder / name, here): alternative_text
            for name, alternative_text in figures.draw(result, folder, path.stem).items()
        }
        text = re.sub(r"^(#+) ", r"##\1 ", page(result, drawn), flags=re.MULTILINE)
        return re.sub(r"(\[[\d.,]+), ([\d.,]+\])", "\\1,\u00a0\\2", text)  # quartiles stay on one line


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("benchmarks", Benchmarks)
    return {"parallel_read_safe": True}
