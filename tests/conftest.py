"""What every test starts from: one thread, one seed, and one hypothesis profile."""

import logging
import os
import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # two test workers share two cores

# MFP_EXAMPLES=200 draws as many where a test does not name a smaller number of its own.
# A failing example in CI must come back on the next run; at a desk, new examples each time find more
settings.register_profile(
    "examples",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    max_examples=int(os.environ.get("MFP_EXAMPLES", "25")),
    print_blob=True,
)
settings.load_profile("examples")


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """The package's log, as of a process to which nothing was said yet: most of it is said once a process."""
    monkeypatch.setattr("mfp_neurons._checks._said", set())  # private, because nobody else has to forget
    with caplog.at_level(logging.WARNING, "mfp_neurons"):
        yield caplog
