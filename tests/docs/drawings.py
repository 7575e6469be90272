"""Digits drawn by hand, as strokes of few points."""

import numpy as np

Stroke = list[tuple[float, float]]

# A line for each drawing: the digit, then points "x,y", x to the right and y downwards, in a box of 100 x
# 140. Strokes are divided by "/". A smooth line goes through the points of a stroke; one that begins with "!"
# has corners instead.
BY_HAND = """
0 55,8 30,20 16,60 20,105 45,130 72,120 86,80 82,35 62,10 52,8
0 50,15 20,40 15,75 30,115 55,125 80,100 85,60 70,25 48,14
0 62,20 40,18 22,50 20,95 38,122 62,118 80,85 80,45 66,22 58,18
1 !52,10 50,130
1 !62,8 44,132
1 !30,38 56,10 52,130
2 20,38 32,14 58,10 76,30 70,58 46,88 18,124 / !18,124 84,122
2 24,40 40,14 66,16 76,40 62,74 36,104 20,122 34,114 58,120 84,124
2 18,30 44,12 72,22 74,48 52,82 24,118 22,126 52,122 82,126
3 22,24 46,10 72,22 70,50 44,64 72,76 80,104 58,126 24,118
3 !20,14 76,14 44,56 / 44,56 74,66 80,98 58,124 20,116
3 26,20 56,12 72,32 58,56 38,64 66,72 76,98 54,126 22,122
4 !52,10 16,88 84,88 / !66,54 62,132
4 !28,12 22,70 80,68 / !72,14 66,130
4 !58,12 20,84 82,80 / !60,46 58,128
5 !78,14 32,14 26,60 / 26,60 54,52 78,74 74,108 46,128 18,116
5 !74,12 34,16 28,62 / 28,62 60,58 76,86 62,118 34,128 16,118
5 !30,16 26,64 / 26,64 58,56 80,84 66,118 38,128 18,120 / !30,16 80,14
6 66,10 38,34 22,80 28,116 54,128 76,106 68,80 44,76 26,98
6 58,8 32,44 20,92 36,124 64,122 74,98 58,78 34,84 24,100
6 72,18 44,26 24,66 24,108 48,128 74,114 74,88 52,76 30,90
7 !18,14 80,14 42,130
7 !20,20 80,16 50,128 / !32,72 76,70
7 !16,18 82,16 58,60 40,130
8 70,26 48,10 28,28 40,56 68,82 72,112 48,128 26,110 34,82 62,54 72,30 66,18
8 50,64 28,42 36,16 60,14 70,36 50,64 26,92 34,122 62,124 74,98 50,64
8 72,20 44,10 28,34 50,62 76,92 62,126 34,122 26,94 52,62 74,36 72,20
9 74,34 54,12 28,26 26,54 48,66 72,48 76,28 / !76,28 70,128
9 72,30 46,12 26,36 38,62 64,58 74,34 72,76 56,128
9 70,40 60,14 34,16 24,44 42,64 66,52 72,28 74,70 62,114 34,126
"""


def drawings() -> list[tuple[int, list[Stroke]]]:
    """(digit, its strokes, points close together) of every drawing, three of each digit."""
    lines = (line.split(maxsplit=1) for line in BY_HAND.strip().splitlines())
    return [(int(digit), [_dense(stroke.strip()) for stroke in text.split("/")]) for digit, text in lines]


def _dense(stroke: str) -> Stroke:
    corners = stroke.startswith("!")
    points = np.array([tuple(map(float, point.split(","))) for point in stroke.lstrip("!").split()])
    at = np.linspace(0, len(points) - 1, 8 * (len(points) - 1) + 1)
    if corners:
        line = np.stack([np.interp(at, range(len(points)), points[:, i]) for i in (0, 1)], 1)
    else:
        line = _catmull_rom(points, at)
    return [(float(x), float(y)) for x, y in line.round(2)]


def _catmull_rom(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The smooth line through points, its ends doubled, at places ``at`` counted in points."""
    p = np.concatenate([points[:1], points, points[-1:]])
    i = np.minimum(at.astype(int), len(points) - 2)
    u = (at - i)[:, None]
    a, b, c, d = (p[i + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)
