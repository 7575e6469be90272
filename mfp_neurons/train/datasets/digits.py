"""Scikit-learn's 1,797 digits of 8 x 8."""

import torch

from mfp_neurons._checks import require
from mfp_neurons.train.config import DataConfig
from mfp_neurons.train.datasets.source import Source, fit, held


def digits(config: DataConfig) -> tuple[Source, Source]:
    """Every fifth, class by class as they come, is for testing."""
    bunch = require("sklearn.datasets", "train").load_digits()
    images = torch.tensor(bunch.images, dtype=torch.uint8).unsqueeze(1)
    samples = fit(images, config.size, frames=False)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        test[(labels == digit).nonzero().flatten()[::5]] = True
    return held(samples[~test], labels[~test]), held(samples[test], labels[test])
