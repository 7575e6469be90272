"""Docstrings are written for a terminal: here shapes such as [T, N, *] are code, and |x| stays as it is.

A default that is a function is shown by its name.
"""

import re
from typing import Any

from sphinx.application import Sphinx

SHAPE = re.compile(r"(?<![\w`\]])\[(?P<axes>[A-Z1-9][-+/ \w]*|[-+/ \w]+(?:, *[-+/ \w*\\]+)+)\](?!`)")


def mark(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    example = False
    for number, line in enumerate(lines):
        example = line.strip() != "" and (example or line.lstrip().startswith(">>>"))
        if not example:
            line = SHAPE.sub(lambda found: f"``[{found['axes'].replace(chr(92), '')}]``", line)
            lines[number] = line.replace("|x|", r"\|x\|")


def name_functions(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    return signature and re.sub(r"<function ([\w.]+)[^>]*>", r"\1", signature), returns


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", mark, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", name_functions)
    return {"parallel_read_safe": True}
