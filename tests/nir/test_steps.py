"""A graph that was written with one T runs with another as its model does, or refuses it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP
from mfp_neurons.nir import NIRNetwork, from_nir, to_nir

Read = Callable[[Tensor], Tensor]


class Model(nn.Module):
    def __init__(self, read: Read) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), MFP(0.9, v_threshold=0.3), nn.Linear(4, 2))
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.layers(x))


def inputs(steps: int) -> Tensor:
    return torch.rand(steps, 2, 3, generator=torch.Generator().manual_seed(steps))


def written(read: Read, path: Path) -> NIRNetwork:
    """Read back from a file, with an example of four steps."""
    to_nir(Model(read), inputs(4), path=path / "graph.nir")
    return from_nir(path / "graph.nir")


FOLLOWED: dict[str, Read] = {
    "every step": lambda y: y,
    "the mean": lambda y: y.mean(0),
    "the last": lambda y: y[-1],
    "the last by its number": lambda y: y[len(y) - 1],
    "the last three": lambda y: y[-3:].mean(0),
    "the last four, which are all of the example": lambda y: y[-4:].sum(0),
    "a loop over the steps": lambda y: torch.stack([step * 2 for step in y]),
}
FIXED: dict[str, Read] = {
    "a factor of T": lambda y: (y / len(y)).sum(0),
    "an offset of T": lambda y: y + y.size(0),
    "half of the steps": lambda y: y[-(len(y) // 2) :].mean(0),
    "the fourth step": lambda y: y[3],
    "at most ten steps": lambda y: y[-min(len(y), 10) :].mean(0),
    "more steps than the example has": lambda y: y[-10:].mean(0),
    "a loop over four steps": lambda y: torch.stack([y[t] for t in range(4)]),
}


@pytest.mark.parametrize("read", FOLLOWED.values(), ids=FOLLOWED.keys())
def test_what_follows_t_agrees_with_the_model_at_every_t(read: Read, tmp_path: Path) -> None:
    network = written(read, tmp_path)
    for steps in (4, 5, 8, 33):
        torch.testing.assert_close(network(inputs(steps)), Model(read)(inputs(steps)))


@pytest.mark.parametrize("read", FIXED.values(), ids=FIXED.keys())
def test_what_was_computed_with_t_is_for_that_t_alone(read: Read, tmp_path: Path) -> None:
    network = written(read, tmp_path)
    torch.testing.assert_close(network(inputs(4)), Model(read)(inputs(4)))
    for steps in (3, 5, 8):
        with pytest.raises(
            ValueError, match=rf"x must have T = 4 steps, got {steps}\. The graph was written"
        ):
            network(inputs(steps))
    again = from_nir(to_nir(network, inputs(4)))
    assert again.steps == 4
    torch.testing.assert_close(again(inputs(4)), network(inputs(4)))


def test_fewer_steps_than_are_read_out_are_refused(tmp_path: Path) -> None:
    network = written(FOLLOWED["the last three"], tmp_path)
    with pytest.raises(ValueError, match="x must have at least 3 steps, which are read, got 2"):
        network(inputs(2))


def test_a_model_that_repeats_its_input_runs_as_often_as_it_does() -> None:
    model = Model(lambda y: y.mean(0))
    repeats = nn.Sequential(Repeat(), model)
    network = from_nir(to_nir(repeats, inputs(1)[0]))
    assert network.steps is None
    torch.testing.assert_close(network(inputs(1)[0]), repeats(inputs(1)[0]))


class Repeat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.expand(5, *x.shape)
