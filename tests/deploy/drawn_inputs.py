"""What hypothesis draws as the input of a model: events, images, counts, and what normalizes them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = {"bytes": [torch.uint8], "whole": [torch.int8, torch.int16, torch.int64, torch.float32]}


@dataclass
class Inputs:
    """An example, as a user has it, and what the model computes with.

    Attributes:
        given: [T, N, *] or [N, *], what ``lower`` and ``run`` get.
        exact: the same as the model gets it, in float64.
        options: keyword arguments of ``lower``: levels, mean, std.
        kind: of what it is, for statistics.
        are_bytes: levels in integers, which the model may shift but not scale.
    """

    given: Tensor
    exact: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    kind: str = "events"
    are_bytes: bool = False


@st.composite
def inputs(
    draw: st.DrawFn, shape: tuple[int, ...], features: tuple[int, ...], random: torch.Generator, dyadic: bool
) -> Inputs:
    """Inputs of a shape, whose smallest and largest numbers are in the first step."""

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    def numbers(low: int, high: int) -> Tensor:
        drawn = torch.randint(low, high + 1, shape, generator=random)
        # the range and whether all numbers are whole show in any step
        first = drawn.view(-1)
        first[0], first[1], first[2] = low, high, (low + high + 1) // 2
        return drawn

    kind = pick("events", "events", "bytes", "images", "from -1 to 1", "signed", "counts", "signed counts")
    options: dict[str, Any] = {}
    if kind == "events":
        levels = numbers(0, 1)
        dtype = pick(torch.bool, torch.float32, torch.int64)
        options = {"levels": 1} if dtype == torch.int64 else {}
        made = Inputs(levels.to(dtype), levels.double(), options, kind)
    elif kind == "bytes":
        top = 16 if dyadic else pick(255, 255, 16)
        levels = numbers(0, top)
        options = {"levels": top} if top == 16 or draw(st.booleans()) else {}
        made = Inputs(levels.to(torch.uint8), levels.double() / top, options, kind, are_bytes=True)
    elif kind in ("images", "from -1 to 1"):
        top, low = 16 if dyadic else pick(255, 255, 16), 0 if kind == "images" else -1
        real = low + numbers(0, top).double() * ((1 - low) / top)
        options = {"levels": top} if top == 16 or draw(st.booleans()) else {}
        made = Inputs(real.float(), real, options, kind)
    else:
        low, high = {"signed": (-1, 1), "counts": (0, 9), "signed counts": (-3, 2)}[kind]
        whole = numbers(low, high)
        options = {"levels": 20} if kind != "signed" and draw(st.booleans()) else {}
        dtype = pick(torch.int8, torch.int16, torch.int64, torch.float32)
        made = Inputs(whole.to(dtype), whole.double(), options, kind)
    if pick(True, False, False):
        rows = (1, features[0])
        means = [pick(0.25, -0.5) if dyadic else pick(0.485, 0.1307, -0.2) for _ in range(pick(*rows))]
        stds = [pick(0.5, 2.0) if dyadic else pick(0.229, 0.3081, 1.7) for _ in range(pick(*rows))]
        places = (-1, *[1] * (len(features) - 1))
        mean, std = (torch.tensor(row, dtype=torch.float64).reshape(places) for row in (means, stds))
        made.exact = (made.exact - mean) / std
        made.kind += ", normalized"
        made.options |= {
            "mean": means[0] if len(means) == 1 else means,
            "std": stds[0] if len(stds) == 1 else pick(tuple(stds), std.flatten()),
        }
    return made
