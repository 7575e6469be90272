"""The notebooks in examples/ have the text of the scripts beside them, were executed, and run."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mfp_neurons.train import data
from mfp_neurons.train.config import ConfigError, DataConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SMALL = "EPOCHS, IMAGES = 1, 64"


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks", EXAMPLES / "tools" / "notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(node: Any) -> list[Any]:
    return [cell for cell in node.cells if cell.cell_type == "code"]


def test_the_notebooks_are_those_that_the_tool_writes() -> None:
    assert [script.with_suffix(".ipynb") for script in tool().SCRIPTS] == NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_its_script_executed_and_small(path: Path) -> None:
    expected, notebook = tool().notebook(path.with_suffix(".py").read_text()), nbformat.read(path, 4)
    nbformat.validate(notebook)
    texts = [[(cell.cell_type, cell.source) for cell in node.cells] for node in (expected, notebook)]
    assert texts[0] == texts[1]
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    printed = [one for cell in cells for one in cell.outputs]
    assert {one.output_type for one in printed} == {"stream"}  # text alone: no error, no picture
    assert "% of the test images" in "".join(one.text for one in printed)
    assert path.stat().st_size < 50_000


@pytest.mark.slow  # the tool writes them from scripts, which tests/test_examples.py runs
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_at_a_small_size(path: Path, tmp_path: Path) -> None:
    try:
        data.load(DataConfig("fashion-mnist", limit=1))
    except ConfigError as error:
        if os.environ.get("MFP_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(str(error))
    node = nbformat.read(path, as_version=4)
    first = code_cells(node)[0]
    first.source, replaced = re.subn(r"^EPOCHS, IMAGES = .*$", SMALL, first.source, flags=re.MULTILINE)
    assert replaced == 1
    ran = tool().execute(node, tmp_path)
    text = "".join(one.text for one in code_cells(ran)[-1].outputs)
    assert re.search(r"as integers: [\d.]+ %", text)
