"""What every test starts from: one thread, one seed, and one hypothesis profile."""

import os
import random

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
