"""Draws what the simulated event camera makes of Fashion-MNIST: the figure of docs/data.md.

python -m benchmarks.draw_events [--root FOLDER] [--out docs/figures/events.png]
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfp_neurons.train import events
from mfp_neurons.train.config import DataConfig
from mfp_neurons.train.datasets.images import read_fashion_mnist
from mfp_neurons.train.figures import pyplot

T = 16
SHOWN = {9: "ankle boot", 0: "T-shirt", 8: "bag", 7: "sneaker"}
OFF, ON = "#0072B2", "#D55E00"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", default="data", help="where Fashion-MNIST is (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/events.png"), help="(%(default)s)")
    arguments = parser.parse_args()
    (images, labels), _ = read_fashion_mnist(DataConfig("fashion-mnist", root=arguments.root))
    chosen = torch.stack([images[(labels == label).nonzero()[0, 0]] for label in SHOWN])
    draw(chosen, arguments.out)
    print(f"wrote {arguments.out}")


def draw(images: Tensor, path: Path) -> None:
    """The frames of every image, and below them the single events of the first."""
    plt = pyplot()
    figure = plt.figure(figsize=(13.5, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(len(images), 3))
    axes = above.subplots(len(images), T + 1)
    for row, image, name in zip(axes, images, SHOWN.values(), strict=True):
        row[0].imshow(image, cmap="gray")
        row[0].set_ylabel(name, fontsize=8)
        frames = events.frames(image.unsqueeze(0), T)[0]
        for cell, frame in zip(row[1:], frames, strict=True):
            cell.imshow(colored(frame), interpolation="nearest")
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[])
    axes[0, 0].set_title("image", fontsize=8)
    for number, cell in enumerate(axes[0, 1:]):
        cell.set_title(f"t = {number}", fontsize=8)
    scatter(below.subplots(1, 2), events.events(images[0], T), next(iter(SHOWN.values())))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def colored(frame: Tensor) -> Tensor:
    """[2, H, W] as red, green and blue: OFF and ON in their colors, both in black, neither in white."""
    off, on = frame.bool().unsqueeze(-1)
    palette = {name: torch.tensor(rgb(name)) for name in (OFF, ON)}
    shown = torch.where(off, palette[OFF], torch.ones(3))
    shown = torch.where(on, palette[ON], shown)
    return torch.where(off & on, torch.zeros(3), shown)


def rgb(name: str) -> list[float]:
    return [int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def scatter(axes: Any, found: events.Events, name: str) -> None:
    for panel, place, word in zip(axes, (found.x, found.y), ("x", "y, downward"), strict=True):
        for polarity, color, label in ((0, OFF, "OFF: darker"), (1, ON, "ON: brighter")):
            of = found.p == polarity
            panel.scatter(found.t[of] / 1000, place[of], s=1.2, color=color, label=label, linewidths=0)
        panel.set(xlabel="time, ms", ylabel=f"{word}, pixels", xlim=(0, events.DURATION / 1000))
        for boundary in (100, 200):
            panel.axvline(boundary, color="0.6", linewidth=0.8)
    axes[0].set_title(f"events of the {name}: {len(found.t):,} in three saccades", fontsize=9)
    axes[1].legend(
        markerscale=6, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False
    )
    axes[1].invert_yaxis()


if __name__ == "__main__":
    main()
