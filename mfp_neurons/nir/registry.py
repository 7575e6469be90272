"""The rules: what each torch function becomes in a graph, by its name."""

from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
MOVES: set[str] = set()  # functions that give numbers another place or shape, and change none
VIEWS: set[str] = set()  # functions that give a view of their first input


def rule(*names: str, moves: bool = False, view: bool = False) -> Callable[[Rule], Rule]:
    """Makes a function the rule of these torch functions."""

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = function
        MOVES.update(names if moves or view else ())
        VIEWS.update(names if view else ())
        return function

    return register
