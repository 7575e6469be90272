"""A network runs with another T as its model does, or says that it is for one T alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, TimePool, deploy
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.network import describe
from mfp_neurons.nir import NIRNetwork, from_nir, to_nir
from tests.deploy.lowering import Do, check_agreement, neuron, prepared
from tests.deploy.oracle import exact

Read = Callable[[Tensor], Tensor]


def network(read: Read, fire: nn.Module | None = None) -> nn.Module:
    def forward(x, a, fire, out):
        return read(out(fire(a(x))))

    torch.manual_seed(0)
    layers = nn.Linear(6, 5), neuron(0.1) if fire is None else fire, nn.Linear(5, 3, bias=False)
    return prepared(Do(forward, *layers)).eval()


def events(steps: int) -> Tensor:
    return torch.rand(steps, 2, 6, generator=torch.Generator().manual_seed(steps)) < 0.4


def written(read: Read, folder: Path) -> NIRNetwork:
    """Read back from a file, with an example of four steps."""
    to_nir(network(read), events(4).float(), path=folder / "graph.nir")
    return from_nir(folder / "graph.nir")


def by_the_model(read: Read, steps: int) -> np.ndarray:
    return exact(network(read))(events(steps).double()).detach().numpy()


FOLLOWED: dict[str, Read] = {
    "every step": lambda y: y,
    "the mean": lambda y: y.mean(0),
    "the sum": lambda y: y.sum(0),
    "the last step": lambda y: y[-1],
    "the last step as a window": lambda y: y[-1:].mean(0),
    "the last three": lambda y: y[-3:].mean(0),
    "the last four, which are all of the example": lambda y: y[-4:].sum(0),
    "the mean by keyword": lambda y: torch.mean(y, dim=0),
    "the mean of a kept dimension": lambda y: y.mean(0, keepdim=True)[0],
    "the last step of everything": lambda y: y[-1, ...],
    "the sum of the last steps": lambda y: y[-3:, :].sum(0),
}
FIXED: dict[str, Read] = {
    "a factor of T": lambda y: (y / len(y)).sum(0),
    "half of the steps": lambda y: y[-(len(y) // 2) :].mean(0),
    "at most ten steps": lambda y: y[-min(len(y), 10) :].mean(0),
    "more steps than the example has": lambda y: y[-10:].mean(0),
    "a step that must be there": lambda y: y.mean(0) if len(y) == 4 else 1 / 0,
    "one branch for each T": lambda y: y.mean(0) if len(y) < 10 else y.sum(0),
}
# what NIR has no place for behind a reduction over time; integers have
FOLLOWED_BY_INTEGERS: dict[str, Read] = {
    "the sum over a number": lambda y: y.sum(0) / 4,
    "time and batch as one, and back": lambda y: y.flatten(0, 1).unflatten(0, y.shape[:2]).mean(0),
    "a factor behind the last four": lambda y: y[-4:].mean(0) * 2,
    "a shape that is asked for": lambda y: y.reshape(y.shape[0], -1, 3).mean(0),
}
FIXED_BY_INTEGERS: dict[str, Read] = {
    "the sum over T": lambda y: y.sum(0) / y.shape[0],
    "an offset of T": lambda y: y.mean(0) + y.size(0),
    "an odd T only": lambda y: y.mean(0) * (1 + len(y) % 2),
    "a number of steps of its own": lambda y: y.flatten(0, 1).unflatten(0, (4, -1)).mean(0),
}
# single steps and loops, which integers do not follow yet
FOLLOWED_BY_NIR: dict[str, Read] = {
    "the last by its number": lambda y: y[len(y) - 1],
    "a loop over the steps": lambda y: torch.stack([step * 2 for step in y]),
}
FIXED_BY_NIR: dict[str, Read] = {
    "the fourth step": lambda y: y[3],
    "a loop over four steps": lambda y: torch.stack([y[t] for t in range(4)]),
}


def cases(*tables: dict[str, Read]) -> pytest.MarkDecorator:
    together = {name: read for table in tables for name, read in table.items()}
    return pytest.mark.parametrize("read", together.values(), ids=together.keys())


@cases(FOLLOWED, FOLLOWED_BY_INTEGERS)
@settings(max_examples=8)
@given(example=st.integers(1, 9), steps=st.integers(4, 40))
def test_integers_that_follow_t_agree_with_the_model_at_every_t(read: Read, example: int, steps: int) -> None:
    lowered = deploy.lower(network(read), events(example))
    if lowered.graph.fixed_steps() is None:
        np.testing.assert_allclose(lowered.run(events(steps)), by_the_model(read, steps), atol=1e-9)
    assert lowered.graph.fixed_steps() in (None, example)
    assert lowered.graph.fixed_steps() is None or example < 4  # shorter than the window


@cases(FOLLOWED)
def test_spikes_are_read_out_as_scores_are(read: Read) -> None:
    torch.manual_seed(0)
    model = prepared(Do(lambda x, a, fire: read(fire(a(x))), nn.Linear(6, 12), neuron(0.1))).eval()
    check_agreement(model, events(4))


READS = {"none": (lambda y: y, None), "sum": (lambda y: y[-2:].sum(0), 2), "mean": (lambda y: y[-1], 1)}


@pytest.mark.parametrize("how", READS)
def test_what_is_read_out_stands_in_the_graph(how: str) -> None:
    read, last = READS[how]
    scores = deploy.lower(network(read), events(4)).graph.scores
    assert (scores.reduce, scores.last) == (how, last)


@cases(FIXED, FIXED_BY_INTEGERS)
def test_integers_that_were_computed_with_t_are_for_that_t_alone(read: Read) -> None:
    lowered = deploy.lower(network(read), events(4))
    np.testing.assert_allclose(lowered.run(events(4)), by_the_model(read, 4), atol=1e-9)
    for steps in (3, 5, 8):
        with pytest.raises(ValueError, match=rf"x must have T = 4 steps, got {steps}\. The network is for 4"):
            lowered.run(events(steps))
    assert "T = 4 alone" in str(lowered)


@cases(FOLLOWED, FOLLOWED_BY_NIR)
def test_a_graph_that_follows_t_agrees_with_the_model_at_every_t(read: Read, tmp_path: Path) -> None:
    assert not describe(network(read), events(4)).is_fixed
    again = written(read, tmp_path)
    for steps in (4, 5, 8, 33):
        x = events(steps).float()
        torch.testing.assert_close(again(x), network(read)(x))


@cases(FIXED, FIXED_BY_NIR)
def test_a_graph_that_was_computed_with_t_is_for_that_t_alone(read: Read, tmp_path: Path) -> None:
    assert "and no other number" in str(describe(network(read), events(4)))
    again, x = written(read, tmp_path), events(4).float()
    torch.testing.assert_close(again(x), network(read)(x))
    for steps in (3, 5, 8):
        words = rf"x must have T = 4 steps, got {steps}\. The graph was written"
        with pytest.raises(ValueError, match=words):
            again(events(steps).float())
    once_more = from_nir(to_nir(again, x))
    assert once_more.steps == 4
    torch.testing.assert_close(once_more(x), again(x))


def test_fewer_steps_than_are_read_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x must have at least 3 steps, which are read, got 2"):
        written(FOLLOWED["the last three"], tmp_path)(events(2).float())


def test_one_step_of_which_the_last_is_read_is_read_of_any_number(tmp_path: Path) -> None:
    again = from_nir(to_nir(network(lambda y: y[-1]), events(1).float()))
    torch.testing.assert_close(again(events(5).float()), network(lambda y: y[-1])(events(5).float()))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("read", [lambda y: y.mean(0), lambda y: y[-1], lambda y: y])
def test_a_model_that_repeats_its_input_runs_as_often_as_it_does(read: Read, steps: int) -> None:
    model, x = network(read), events(1)[0].float()
    repeats = Do(lambda x, model: model(x.expand(steps, *x.shape)), model)
    again = from_nir(to_nir(repeats, x))
    assert again.steps is None
    torch.testing.assert_close(again(x), repeats(x))


def test_a_fixed_network_takes_no_step_more_in_any_way_and_stays_fixed_in_a_file(tmp_path: Path) -> None:
    lowered = deploy.lower(network(FIXED_BY_INTEGERS["the sum over T"]), events(4))
    lowered.save(tmp_path / "network")
    for one in (lowered, IntegerNetwork.load(tmp_path / "network")):
        stream = one.stream()
        for step in events(4):
            stream.step(step)
        with pytest.raises(ValueError, match=r"all T = 4 steps of the sequence have passed"):
            stream.step(events(4)[0])
        with pytest.raises(ValueError, match=r"times must lie from 0 to 3, got 4.*for 4 steps alone"):
            one.run_events((np.array([0, 4]), np.array([1, 2])))
        assert one.run_events((np.array([0]), np.array([1]))).scores.shape == (1, 3)
    header = next(path for path in lowered.to_c(tmp_path) if path.name == "mfp_net.h").read_text()
    assert "T, and no other" in header
    assert "of 4, no more: the network is for these alone" in header


def test_a_network_that_follows_t_is_written_as_before_there_were_fixed_ones(tmp_path: Path) -> None:
    lowered = deploy.lower(network(FOLLOWED["the mean"]), events(4))
    lowered.save(tmp_path / "network")
    assert b'\\"fixed\\"' not in (tmp_path / "network").read_bytes()
    assert IntegerNetwork.load(tmp_path / "network").graph.fixed is False


@pytest.mark.parametrize("steps", [1, 3])
def test_a_matrix_kernel_fixes_the_number_of_steps(steps: int) -> None:
    fire = MFP(0.5, kernel="matrix", time_steps=steps, kernel_bits="pow2", v_threshold=0.1)
    lowered = deploy.lower(network(lambda y: y.mean(0), fire), events(steps))
    assert lowered.graph.fixed_steps() == steps
    with pytest.raises(ValueError, match=rf"x must have T = {steps} steps, got 8.*matrix kernel"):
        lowered.run(events(8))


def test_pooling_over_time_is_followed_in_whole_windows() -> None:
    model = prepared(nn.Sequential(nn.Linear(6, 5), neuron(0.1), TimePool(2), nn.Linear(5, 3), TimePool(1)))
    lowered = deploy.lower(Do(lambda x, m: m(x).mean(0), model[:4]), events(4))
    assert lowered.graph.fixed_steps() is None
    expected = exact(model[:4])(events(10).double()).detach().mean(0).numpy()
    np.testing.assert_allclose(lowered.run(events(10)), expected, atol=1e-9)


def test_an_exponential_without_an_order_is_named_once_and_runs_up_to_t_of_the_example(
    said: pytest.LogCaptureFixture,
) -> None:
    model = network(lambda y: y, MFP(0.5, v_threshold=0.9))
    lowered = [deploy.lower(model, events(6)) for _ in range(2)]
    (record,) = [one for one in said.records if "remembers all earlier inputs" in one.getMessage()]
    assert "'layers.1' (MFP)" in record.getMessage()
    assert "order=6" in record.getMessage()
    assert lowered[0].graph.fixed_steps() is None
    expected = exact(model)(events(6).double()).detach().numpy()
    np.testing.assert_allclose(lowered[0].run(events(6)), expected, atol=1e-9)


@pytest.mark.parametrize("fire", [MFP(0.5, order=3), MFP(0.0), MFP(kernel="fir", order=2, kernel_bits=4)])
def test_neurons_that_forget_nothing_are_not_named(fire: nn.Module, said: pytest.LogCaptureFixture) -> None:
    deploy.lower(network(lambda y: y, fire), events(6))
    assert "remembers all earlier inputs" not in said.text


def test_outputs_that_another_t_does_not_have_are_not_dropped() -> None:
    description = describe(network(lambda y: (y.mean(0), y) if len(y) < 5 else (y.mean(0),)), events(4))
    assert [output.form for output in description.outputs] == ["mean", "every step"]
    assert description.is_fixed
