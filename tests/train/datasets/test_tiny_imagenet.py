"""Tiny-ImageNet in the folders of its archive."""

from pathlib import Path

import pytest
import torch

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.data import load

image_module = pytest.importorskip("PIL.Image")
pytest.importorskip("torchvision")

CLASSES = ["n01443537", "n01629819", "n09246464"]
BOX = "\t0\t32\t44\t62"


def color(number: int) -> tuple[int, int, int]:
    return 80 * (number % 3), 10 * number, 255 - 20 * number


def save(path: Path, number: int) -> None:
    """One color all over, which JPEG keeps to a level or two; every third image is gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode, filling = ("L", 20 * number) if number % 3 == 2 else ("RGB", color(number))
    image_module.new(mode, (64, 64), filling).save(path, quality=95)


def stored(number: int) -> torch.Tensor:
    levels = (20 * number,) * 3 if number % 3 == 2 else color(number)
    return torch.tensor(levels).reshape(3, 1, 1).expand(3, 64, 64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-imagenet-200"
    for number in range(9):
        name = CLASSES[number // 3]
        save(folder / "train" / name / "images" / f"{name}_{number % 3}.JPEG", number)
    lines = []
    for number, label in enumerate((2, 0, 1, 2)):
        save(folder / "val" / "images" / f"val_{number}.JPEG", number)
        lines.append(f"val_{number}.JPEG\t{CLASSES[label]}{BOX}\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return tmp_path


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(((found.int() - expected.int()).abs() <= 3).all())


def test_folders_are_classes_and_the_annotated_images_are_for_testing(root: Path) -> None:
    data = load(DataConfig("tiny-imagenet", root=str(root), validation=1))
    assert (len(data.train), len(data.validation), data.classes) == (8, 1, 3)
    assert data.test.labels.tolist() == [2, 0, 1, 2]
    assert data.features == (3, 64, 64)
    assert data.scale == 255
    assert data.train.samples.dtype == torch.uint8
    for number in range(4):
        assert near(data.test.samples[number], stored(number))
    for sample, label in zip(data.train.samples, data.train.labels, strict=True):
        assert any(near(sample, stored(number)) for number in range(3 * label, 3 * label + 3))


def test_the_folder_itself_is_found_and_images_can_be_made_smaller(root: Path) -> None:
    config = DataConfig("tiny-imagenet", root=str(root / "tiny-imagenet-200"), validation=1, size=32)
    data = load(config)
    assert data.features == (3, 32, 32)
    assert near(data.test.samples[3], stored(3)[:, :32, :32])


def test_only_the_images_that_are_used_are_opened(root: Path) -> None:
    config = DataConfig("tiny-imagenet", root=str(root), validation=1, limit=2, test_limit=1)
    used = load(config)
    opened = {*used.train.labels.tolist(), *used.validation.labels.tolist()}
    for number in range(3):
        if number not in opened:
            for file in (root / "tiny-imagenet-200" / "train" / CLASSES[number]).rglob("*.JPEG"):
                file.write_bytes(b"not a picture")
    assert torch.equal(load(config).train.samples, used.train.samples)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("val/val_annotations.txt", f"val_0.JPEG\tn00000000{BOX}", r"val_annotations\.txt"),
        ("val/val_annotations.txt", "val_0.JPEG", r"val_annotations\.txt"),
        ("val/val_annotations.txt", "", r"val_annotations\.txt"),
        ("val/images/val_1.JPEG", "not a picture", r"val_1\.JPEG"),
        ("train/n99999999/no-image", "", "n99999999"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(root: Path, file: str, content: str, words: str) -> None:
    path = root / "tiny-imagenet-200" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match=words):
        load(DataConfig("tiny-imagenet", root=str(root)))
    with pytest.raises(ConfigError, match=r"no Tiny-ImageNet there.*tiny-imagenet-200.*zip"):
        load(DataConfig("tiny-imagenet", root=str(root / "elsewhere")))
