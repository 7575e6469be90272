"""The compiled runtime's threads: scores do not depend on them, forked processes have their own."""

import multiprocessing
import os
import threading
from typing import Any

import numpy as np
import pytest
import torch

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.deploy.host import compiled

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
x = np.random.default_rng(0).random((4, 8, 32)) < 0.3  # [T, N, 32]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> deploy.IntegerNetwork:
    monkeypatch.setattr(compiled.Compiled, "words_a_thread", 1)  # small as it is, it is shared out
    torch.manual_seed(0)
    hidden = MFP(0.5, order=4, v_threshold=0.2)
    model = torch.nn.Sequential(torch.nn.Linear(32, 256), hidden, torch.nn.Linear(256, 130))
    return deploy.lower(quantize_weights(model, bits=1), torch.zeros(4, 1, 32))


def in_a_fork(work: Any, seconds: float = 60) -> Any:
    """What ``work()`` returns in a forked process."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=lambda: there.send(work()))
    child.start()
    try:
        assert here.poll(seconds), f"the forked process has not answered after {seconds} s"
        return here.recv()
    finally:
        child.kill()
        child.join()


@forks
def test_a_forked_process_runs_and_streams_on_threads_of_its_own(network: deploy.IntegerNetwork) -> None:
    expected = network.run(x, backend="numpy")
    stream = network.stream(threads=3)
    first = stream.step(x[0])
    np.testing.assert_array_equal(network.run(x, threads=3), expected)

    def work() -> Any:
        again = [network.run(x, threads=3) for _ in range(3)]
        steps = [first, *(stream.step(step) for step in x[1:])]
        return again, np.stack(steps), len(os.listdir("/proc/self/task")) if os.path.isdir("/proc") else 3

    again, steps, threads = in_a_fork(work)
    for scores in again:
        np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(steps, expected)
    assert threads >= 3  # started anew
    np.testing.assert_array_equal(network.run(x, threads=3), expected)


@forks
def test_a_process_forked_while_another_thread_runs_the_network_runs_it_too(
    network: deploy.IntegerNetwork,
) -> None:
    expected, stop = network.run(x, backend="numpy"), threading.Event()

    def run_on() -> None:
        while not stop.is_set():
            network.run(x, threads=3)

    busy = threading.Thread(target=run_on)
    busy.start()
    try:
        for _ in range(5):
            np.testing.assert_array_equal(in_a_fork(lambda: network.run(x, threads=3)), expected)
    finally:
        stop.set()
        busy.join()


def test_threads_of_the_program_run_one_network_at_the_same_time(network: deploy.IntegerNetwork) -> None:
    inputs = [np.roll(x, shift, axis=2)[:, : 1 + shift] for shift in range(4)]
    expected = [network.run(each, backend="numpy") for each in inputs]
    wrong: list[int] = []

    def run(index: int) -> None:
        for _ in range(50):
            if not np.array_equal(network.run(inputs[index], threads=2), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_without_threads_pytorchs_number_at_the_call_is_used(
    network: deploy.IntegerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    call = compiled.Compiled.call  # the last place that a number of threads passes on its way to C

    def spy(runtime: Any, size: Any, *arguments: Any) -> Any:
        used.append(size.threads)
        return call(runtime, size, *arguments)

    monkeypatch.setattr(compiled.Compiled, "call", spy)
    stream = network.stream()
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 2):
            torch.set_num_threads(threads)
            network.run(x)
            stream.step(x[0])
    finally:
        torch.set_num_threads(before)
    network.run(x, threads=5)
    network.run(x, threads=10**6)
    assert used == [1, 1, 3, 3, 2, 2, 5, 256]


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_are_1_or_more(network: deploy.IntegerNetwork, threads: Any) -> None:
    for call in (lambda: network.run(x, threads=threads), lambda: network.stream(threads=threads)):
        with pytest.raises((TypeError, ValueError), match="threads must be an integer >= 1, got"):
            call()
