"""One way to say what a network has wrong: the place, the field, what came, what is accepted."""

from typing import Any, NoReturn

import numpy as np

from .errors import InvalidNetworkError


def demand(ok: bool, where: str, field: str, value: Any, accepted: str) -> None:
    """Raises InvalidNetworkError unless ``ok``."""
    if not ok:
        refuse(where, field, value, accepted)


def refuse(where: str, field: str, value: Any, accepted: str) -> NoReturn:
    raise InvalidNetworkError(f"{where}: {field} must be {accepted}, got {describe(value)}")


def whole(where: str, field: str, value: Any, low: int, high: int) -> None:
    """Raises unless ``value`` is a Python integer from ``low`` to ``high``."""
    demand(
        _is_whole(value, low, high), where, field, value, f"an integer from {_short(low)} to {_short(high)}"
    )


def wholes(where: str, field: str, value: Any, low: int, high: int, count: int) -> None:
    """Raises unless ``value`` is a tuple of ``count`` Python integers from ``low`` to ``high``."""
    ok = isinstance(value, tuple) and len(value) == count and all(_is_whole(n, low, high) for n in value)
    demand(ok, where, field, value, f"a tuple of {count} integers from {_short(low)} to {_short(high)}")


def array(where: str, field: str, value: Any, dtype: type, shape: tuple[int | str, ...]) -> None:
    """Raises unless ``value`` is an array of ``dtype`` and ``shape``, text there for any length >= 1."""
    ok = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == len(shape)
    ok = ok and all(
        length == wanted if isinstance(wanted, int) else length >= 1
        for length, wanted in zip(value.shape, shape, strict=True)
    )
    demand(ok, where, field, value, f"{np.dtype(dtype)} [{', '.join(map(str, shape))}]")


def within(where: str, field: str, value: np.ndarray, low: int, high: int) -> None:
    """Raises unless every number of an array lies from ``low`` to ``high``."""
    if value.size and (int(value.min()) < low or int(value.max()) > high):
        worst = int(value.min()) if int(value.min()) < low else int(value.max())
        refuse(where, field, worst, f"from {_short(low)} to {_short(high)}")


def describe(value: Any) -> str:
    """A short description; never long, whatever came."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"  # Python does not write out very long ones
    if isinstance(value, list | tuple):
        if len(value) > 8 or not all(isinstance(item, int | float | str) for item in value):
            return f"a {type(value).__name__} of {len(value)}"
        inside = ", ".join(map(describe, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, str | int | float | None):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _short(n: int) -> str:
    """2**62 rather than 4611686018427387904."""
    for less in (0, 1):
        power = abs(n) + less
        if power >= 2**15 and power.bit_count() == 1:
            text = f"2**{power.bit_length() - 1}" + " - 1" * less
            return text if n > 0 else f"-({text})" if less else f"-{text}"
    return str(n)
