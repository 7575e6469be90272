"""Where a record is kept: an index of digests for each part, and a file for each text."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONGEST = 200_000  # characters of a text that is kept; of a longer one its digest alone


class Book:
    """One part of a record: ``PART.json`` is {case: {item: digest}}, texts lie in ``PART/case/item.txt``."""

    def __init__(self, folder: Path, part: str) -> None:
        self.folder, self.part = folder, part
        self.index: dict[str, dict[str, str]] = {}

    def put(self, case: str, item: str, value: Any) -> None:
        """Records a value: a text as it is, anything else by its digest."""
        items = self.index.setdefault(case, {})
        assert item not in items, f"{case}: {item} is recorded twice"
        if not isinstance(value, str):
            items[item] = digest(value)
            return
        text = cleaned(value)
        items[item] = "text " + sha(text.encode())
        if len(text) <= LONGEST:
            path = self.folder / self.part / safe(case) / f"{safe(item)}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def attempt(self, case: str, item: str, function: Callable[[], Any]) -> Any:
        """Records what a function returns, or the type and the words of what it raises; None then."""
        try:
            value = function()
        except Exception as error:
            self.put(case, item, f"{type(error).__name__}: {error}\n")
            return None
        self.put(case, item, value)
        return value

    def save(self) -> None:
        text = json.dumps(self.index, indent=0, sort_keys=True)
        (self.folder / f"{self.part}.json").write_text(text)


def safe(name: str) -> str:
    short = re.sub(r"[^\w.,=+-]+", "_", name)
    return short if len(short) <= 150 else f"{short[:130]}-{sha(name.encode())}"


def cleaned(text: str) -> str:
    """Without what changes from run to run: folders for temporary files, and addresses in memory."""
    text = re.sub(r"/tmp/[\w./-]*/", "<tmp>/", text)
    text = re.sub(r"\b0x[0-9a-f]{6,}\b", "<address>", text)
    here = str(Path(__file__).parents[2])
    return text.replace(here, "<root>")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


def digest(value: Any) -> str:
    """One line: of an array dtype, shape, sha256 and the sum, which says how far a change goes."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            raw = value.contiguous().view(torch.int16).numpy()
        else:
            raw = value.contiguous().numpy()
        total = float(value.double().sum()) if value.numel() else 0.0
        name = str(value.dtype).removeprefix("torch.")
        return f"{name}{list(value.shape)} {sha(raw.tobytes())} sum={total:.9g}"
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return digest(value.tolist())
        plain = np.ascontiguousarray(value)
        return f"{plain.dtype}{list(plain.shape)} {sha(plain.tobytes())} sum={float(plain.sum()):.9g}"
    if isinstance(value, bytes):
        return f"bytes[{len(value)}] {sha(value)}"
    if value is None or isinstance(value, bool | int | float | complex | str | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key}: {digest(one)}" for key, one in value.items())
        return shortened(f"{{{inside}}}")
    if isinstance(value, Sequence):
        return shortened(f"[{', '.join(digest(one) for one in value)}]")
    return shortened(cleaned(repr(value)))


def shortened(text: str) -> str:
    return text if len(text) <= 400 else f"{text[:300]}... {sha(text.encode())}"
