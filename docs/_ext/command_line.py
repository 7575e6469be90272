"""``{command-line}``: the help of every `mfp-neurons` command, as the program prints it."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mfp_neurons.cli import build_parser


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that take no further command, in the order of the help."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        for one in action.choices.values():
            yield from commands(one)


class CommandLine(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        os.environ["COLUMNS"] = "88"  # argparse wraps for the terminal that it finds
        sections: list[nodes.Node] = []
        for parser in commands(build_parser()):
            section = nodes.section(
                ids=[nodes.make_id(parser.prog)], names=[nodes.fully_normalize_name(parser.prog)]
            )
            text = parser.format_help()
            section += [
                nodes.title("", "", nodes.literal(text=parser.prog)),
                nodes.literal_block(text, text, language="text"),
            ]
            self.state.document.note_implicit_target(section, section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
