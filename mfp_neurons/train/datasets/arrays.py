"""What other libraries' data sets give for a sample, as tensors."""

from typing import Any

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons.train.datasets.source import Source, fit, held


def gather(dataset: Any, size: int) -> Source:
    """Every sample of an indexable data set, made ``size`` high and wide and stacked.

    Tonic lists files as the file system does; here they come by name, so that splits are the same
    everywhere.
    """
    files = getattr(dataset, "data", None)
    order = list(range(len(dataset)))
    if isinstance(files, list) and len(files) == len(order) and all(isinstance(f, str) for f in files):
        order.sort(key=files.__getitem__)
    samples, labels = [], []
    for index in order:
        sample, label = dataset[index]
        tensor = as_tensor(sample)
        samples.append(fit(tensor, size, frames=tensor.dim() == 4))
        labels.append(int(label))
    if not samples:
        raise ValueError("it has no samples")
    return held(torch.stack(samples), torch.tensor(labels))


def as_tensor(sample: Any) -> Tensor:
    """A PIL image [H, W] or [H, W, C] as [C, H, W]; frames [T, C, H, W] as they are, in bytes if they fit."""
    if isinstance(sample, Tensor):
        return sample
    numpy = require("numpy", "train")
    array = numpy.asarray(sample)
    if array.ndim == 4:
        whole = array.size == 0 or (
            array.min() >= 0 and array.max() <= 255 and (array == array.round()).all()
        )
        return torch.from_numpy(array.astype(numpy.uint8 if whole else numpy.float32))
    tensor = torch.from_numpy(array.copy())
    return tensor.unsqueeze(0) if tensor.dim() == 2 else tensor.permute(2, 0, 1)
