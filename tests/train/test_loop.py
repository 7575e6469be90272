"""The training loop of the examples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP
from mfp_neurons.train.data import Data, Split
from mfp_neurons.train.loop import accuracy, classification_loss, fit

STEPS, WIDTH, CLASSES = 3, 6, 3


def make_data(count: int = 90, seed: int = 0) -> Data:
    """Frames [T, 1, 1, 6] whose label is the brightest third; each split has samples of its own."""
    generator = torch.Generator().manual_seed(seed)

    def split() -> Split:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        frames = torch.rand(count, STEPS, 1, 1, WIDTH, generator=generator)
        for n, label in enumerate(labels):
            frames[n, ..., 2 * label : 2 * label + 2] += 1
        return Split(frames, labels)

    return Data(split(), split(), split(), CLASSES, "frames", STEPS, 1.0)


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(2), nn.Linear(WIDTH, 16), MFP(0.5), nn.Linear(16, CLASSES))


class Fixed(nn.Module):
    """Answers with the class that a table holds for each sample, told apart by its first value."""

    def __init__(self, split: Split, answers: Tensor, over_time: bool):
        super().__init__()
        self.keys = split.samples[:, 0, 0, 0, 0]
        self.answers, self.over_time = answers, over_time
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        found = (x[0, :, 0, 0, :1] == self.keys).int().argmax(1)
        scores = nn.functional.one_hot(self.answers[found], CLASSES).float()
        if not self.over_time:
            return scores
        wrong = scores.roll(1, -1)  # says something else at one step of three: the mean decides
        return torch.stack([scores, wrong, scores])


@given(
    answers=st.lists(st.integers(0, CLASSES - 1), min_size=5, max_size=5),
    images=st.sampled_from([None, 1, 3, 5, 9]),
    batch_size=st.integers(1, 6),
    over_time=st.booleans(),
)
def test_accuracy_is_the_percentage_of_right_answers(
    answers: list[int], images: int | None, batch_size: int, over_time: bool
) -> None:
    data = make_data(5)
    split = data.validation if images else data.test
    net = Fixed(split, torch.tensor(answers), over_time).train()
    labels = split.labels.tolist()[:images]
    right = sum(a == b for a, b in zip(answers, labels, strict=False))
    asked = {"split": split} if images else {}  # the test split, if none is named
    percent = accuracy(net, data, **asked, images=images, batch_size=batch_size)
    assert percent == pytest.approx(100 * right / len(labels))


def test_fit_learns_and_returns_the_model_itself_in_eval_mode(capsys: pytest.CaptureFixture[str]) -> None:
    data, net = make_data(), make_net()
    assert fit(net, data, epochs=20, batch_size=16, learning_rate=0.02) is net
    assert not net.training
    assert accuracy(net, data) > 80  # chance is a third
    assert "epoch 20/20" in capsys.readouterr().err


def test_fit_is_the_same_for_the_same_seed_and_draws_nothing_when_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = (fit(make_net(), make_data(), epochs=2, bars=False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert capsys.readouterr().err == ""


def test_fit_sees_every_training_sample_once_an_epoch() -> None:
    data, seen = make_data(25), []

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        seen.append(len(labels))
        return classification_loss(scores, labels)

    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.firsts = make_net(), []

        def forward(self, x: Tensor) -> Tensor:
            self.firsts += x[0, :, 0, 0, 0].tolist()
            return self.net(x)

    net = Recording()
    fit(net, data, epochs=2, batch_size=10, loss=loss, bars=False)
    assert seen == [10, 10, 5] * 2
    expected = sorted(data.train.samples[:, 0, 0, 0, 0].tolist())
    assert sorted(net.firsts[:25]) == expected and sorted(net.firsts[25:]) == expected
    assert net.firsts[:25] != net.firsts[25:]


def test_neurons_that_keep_something_start_each_batch_from_nothing() -> None:
    pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
    from spikingjelly.activation_based import neuron

    data = make_data(4)
    net = nn.Sequential(nn.Flatten(2), nn.Linear(WIDTH, CLASSES), neuron.LIFNode(step_mode="m"))
    with torch.no_grad():
        net[1].bias.fill_(0.4)  # a potential carried on would reach the threshold
    fit(net, data, epochs=1, batch_size=2, bars=False)
    assert net[2].v == 0.0
    whole = accuracy(net, data, batch_size=4)
    assert accuracy(net, data, batch_size=2) == whole  # a batch of the same size continues what is not reset
    assert net[2].v == 0.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda net, data: fit(net, data, epochs=0), ValueError, "epochs must be an integer >= 1, got 0"),
        (lambda net, data: fit(net, data, epochs=1.5), TypeError, "epochs must be"),
        (lambda net, data: fit(net, data, epochs=1, batch_size=0), ValueError, "batch_size must be"),
        (lambda net, data: fit(nn.Flatten(2), data, epochs=1), ValueError, "model must have parameters"),
        (lambda net, data: accuracy(net, data, images=0), ValueError, "images must be an integer >= 1"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_is_touched(call, error, words) -> None:
    net = make_net().eval()
    with pytest.raises(error, match=words):
        call(net, make_data(4))
    assert not net.training


def test_a_loss_that_is_not_a_number_stops_with_where_and_what_to_try() -> None:
    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return scores.sum() * float("nan")

    with pytest.raises(FloatingPointError, match=r"nan in epoch 1, step 1: try a learning_rate below 0.002"):
        fit(make_net(), make_data(4), epochs=1, loss=loss, bars=False)
