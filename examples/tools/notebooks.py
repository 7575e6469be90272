"""Writes the notebooks in examples/ from the scripts beside them: python examples/tools/notebooks.py

A script's docstring becomes the title, up to its colon, and the first words; each line that starts with
``# %%`` becomes the heading of a new cell. So script and notebook have one text.
"""

import ast
import re
import sys
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import v4

EXAMPLES = Path(__file__).parents[1]
SCRIPTS = [EXAMPLES / "snntorch_tutorial_5.py", EXAMPLES / "snntorch_tutorial_6.py"]


def notebook(source: str) -> Any:
    """A script as a notebook (an nbformat node) without outputs."""
    title, _, words = (ast.get_docstring(ast.parse(source)) or "").partition(": ")
    code = source.split('"""', maxsplit=2)[2]
    first, *rest = re.split(r"^# %% ?(.*)\n", code, flags=re.MULTILINE)
    cells = [v4.new_markdown_cell(f"# {title}\n\n{words}"), v4.new_code_cell(first.strip())]
    for heading, block in zip(rest[::2], rest[1::2], strict=True):
        cells += [v4.new_markdown_cell(f"**{heading}.**"), v4.new_code_cell(block.strip())]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # not drawn at random: the same script gives the same notebook
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(node: Any, folder: Path) -> Any:
    """Runs every cell in ``folder`` and keeps what it prints; of a progress bar, the last state."""
    client = NotebookClient(
        node,
        kernel_name="python3",
        timeout=3600,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in node.cells:  # a bar that has been cleared is blank
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.output_type != "stream" or one.text.strip()]
    return node


def main() -> None:
    import nbformat

    chosen = [EXAMPLES / name for name in sys.argv[1:]] or SCRIPTS
    for script in chosen:
        node = execute(notebook(script.read_text()), EXAMPLES)
        node.metadata.pop("language_info", None)  # the version of this machine's Python
        nbformat.write(node, script.with_suffix(".ipynb"))
        sys.stderr.write(f"{script.with_suffix('.ipynb')}\n")


if __name__ == "__main__":
    main()
