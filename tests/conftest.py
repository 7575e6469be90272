"""What every test starts from: one thread, one seed, and one hypothesis profile."""

import os
import random

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # two test workers share two cores

# a failing example in CI must come back on the next run; at a desk, new examples each time find more
settings.register_profile("desk", deadline=None, max_examples=50, print_blob=True)
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    torch.manual_seed(0)
