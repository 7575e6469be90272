"""The tutorials' networks: every form starts from the same weights, and the page shows what was measured."""

import json

import pytest
import torch

from benchmarks import swap

FEW = (torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8), torch.arange(40) % 10)


def first_pass(tutorial: swap.Tutorial, form: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Spikes, and the gradients of all weights, of a network of this form on four pictures."""
    torch.manual_seed(0)
    net = tutorial.network(swap.FORMS[form])
    with torch.no_grad():
        for weight in net.parameters():
            weight *= 3  # so that neurons fire without training
    torch.manual_seed(0)
    pictures, labels = FEW[0][:4].unsqueeze(1) / 255, FEW[1][:4]
    spikes, potentials = net(tutorial.read(pictures))
    tutorial.loss(spikes, potentials, labels).backward()
    return spikes, [weight.grad for weight in net.parameters() if weight.grad is not None]


@pytest.mark.parametrize("form", swap.FORMS)
@pytest.mark.parametrize("name", swap.TUTORIALS)
def test_every_form_of_a_network_trains_and_is_tested(name: str, form: str) -> None:
    run = swap.train(swap.TUTORIALS[name], swap.FORMS[form], 0, (FEW, FEW), iterations=1)
    accuracy = run.pop("test_accuracy")
    assert run == {"tutorial": name, "form": form, "seed": 0}
    assert 0 <= accuracy <= 100


@pytest.mark.parametrize("name", swap.TUTORIALS)
def test_with_the_reset_kept_a_network_fires_and_learns_as_the_frameworks_own(name: str) -> None:
    spikes, gradients = first_pass(swap.TUTORIALS[name], "original")
    ours, our_gradients = first_pass(swap.TUTORIALS[name], "reset")
    assert spikes.any()
    # a potential within rounding of the threshold may fire in one and not in the other
    assert (spikes != ours).float().mean() < 1e-3
    for expected, gradient in zip(gradients, our_gradients, strict=True):
        assert torch.nn.functional.cosine_similarity(expected.flatten(), gradient.flatten(), 0) > 0.999


def test_a_run_is_repeated_exactly() -> None:
    tutorial = swap.TUTORIALS["spikingjelly-lif-fc"]
    once, again = (swap.train(tutorial, swap.FORMS["reset"], 1, (FEW, FEW), iterations=2) for _ in range(2))
    assert once == again


def test_what_has_a_result_is_not_done_again() -> None:
    runs = [{"tutorial": "a", "form": "x", "seed": 1, "test_accuracy": 50.0}]
    assert swap.missing(runs, ["a"], ["x"]) == [("a", "x", 0), ("a", "x", 2)]


def test_a_cell_has_the_mean_and_each_seed() -> None:
    accuracies = {2: 63.0, 0: 60.0, 1: 61.5}  # not in order, as when one was done again
    runs = [
        {"tutorial": "snntorch-5", "form": "reset", "seed": seed, "test_accuracy": accuracy}
        for seed, accuracy in accuracies.items()
    ]
    cells = [cell.strip() for cell in swap.table(runs).splitlines()[2].split("|")[1:-1]]
    assert cells[0].startswith("snnTorch, tutorial 5")
    assert cells[1:] == ["", "**61.5** (60.0 61.5 63.0)", "", "", ""]


def test_the_page_shows_the_committed_results() -> None:
    runs = json.loads(swap.RESULTS.read_text())["runs"]
    assert swap.table(runs) in swap.PAGE.read_text(), "python -m benchmarks.swap --show"
