/* A drawing as 8 x 8 levels, 0 to 16, the way the digits of the data set were made: the character is scaled to 20 x 32
 * pixels of a 32 x 32 bitmap, made thinner or thicker if it has too much or too little ink, sheared until the left ends
 * of its top and bottom rows stand above each other, and the pixels of each 4 x 4 block are counted. The first three
 * steps are those of NIST's form readers (Garris et al., NISTIR 5469, 1994), with its sizes and amounts of ink; which
 * row a shear leaves in place, and what happens at the border, is our choice.
 *
 * A drawing is a list of strokes, a stroke a list of points [x, y], y downwards. */
"use strict";

const drawing = (() => {
  const { range, sum } = page;
  const SIZE = 32, WIDTH = 20, BLOCK = 4;
  const PEN = 0.07; // radius, as a share of the larger side of what the strokes span: ink as in the data set
  const NARROWEST = 0.3; // width to height, at least; a mouse draws straighter lines than pens do

  /** {bitmap: [32][32], true for ink; levels: [8][8]}, or null of an empty drawing. */
  function read(strokes) {
    const segments = strokes.flatMap(segmentsOf);
    if (!segments.length) return null;
    const bitmap = shear(evenInk(scaled(segments)));
    return { bitmap, levels: blockCounts(bitmap) };
  }

  /** Straight pieces [x0, y0, x1, y1]; a dot is one without length. */
  const segmentsOf = (points) =>
    points.length === 1 ? [[...points[0], ...points[0]]] : points.slice(1).map((point, i) => [...points[i], ...point]);

  function scaled(segments) {
    const xs = segments.flatMap(([x0, , x1]) => [x0, x1]), ys = segments.flatMap(([, y0, , y1]) => [y0, y1]);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const pen = PEN * (Math.max(right - left, bottom - top) || 1);
    const height = bottom - top + 2 * pen;
    const width = Math.max(right - left + 2 * pen, NARROWEST * height);
    return grid((row, column) => {
      const x = (left + right) / 2 + ((column + 0.5 - SIZE / 2) / WIDTH) * width;
      const y = (top + bottom) / 2 + ((row + 0.5 - SIZE / 2) / SIZE) * height;
      return segments.some((segment) => distance(segment, x, y) <= pen);
    });
  }

  function distance([x0, y0, x1, y1], x, y) {
    const dx = x1 - x0, dy = y1 - y0;
    const along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
    const nearest = Math.min(1, Math.max(0, along));
    return Math.hypot(x - x0 - nearest * dx, y - y0 - nearest * dy);
  }

  /** Strokes of a usual thickness: pixels are taken from or added to all edges, at most twice. */
  function evenInk(bitmap) {
    const ink = sum(bitmap.flat());
    const times = ink > 560 || ink < 108 ? 2 : ink > 412 || ink < 256 ? 1 : 0;
    const change = ink > 412 ? eroded : dilated;
    return range(times).reduce(change, bitmap);
  }

  // above, below, left and right; undefined outside, which counts neither for a pixel nor against it
  const neighbors = (bitmap, row, column) =>
    [bitmap[row - 1]?.[column], bitmap[row + 1]?.[column], bitmap[row][column - 1], bitmap[row][column + 1]];

  const eroded = (bitmap) =>
    grid((row, column) => bitmap[row][column] && neighbors(bitmap, row, column).every((ink) => ink !== false));

  const dilated = (bitmap) =>
    grid((row, column) => bitmap[row][column] || neighbors(bitmap, row, column).some((ink) => ink));

  /** Shifts the rows, those of the middle least, until the left ends of the first and the last with ink agree. */
  function shear(bitmap) {
    const inked = range(SIZE).filter((row) => bitmap[row].includes(true));
    const top = inked[0], bottom = inked.at(-1);
    if (!(top < bottom)) return bitmap;
    const slope = (bitmap[top].indexOf(true) - bitmap[bottom].indexOf(true)) / (bottom - top);
    return grid((row, column) => {
      const shift = Math.round(slope * (row - (top + bottom) / 2));
      return bitmap[row][column - shift] === true;
    });
  }

  const blockCounts = (bitmap) =>
    range(SIZE / BLOCK).map((i) =>
      range(SIZE / BLOCK).map((j) => {
        const rows = bitmap.slice(i * BLOCK, (i + 1) * BLOCK);
        return sum(rows.flatMap((row) => row.slice(j * BLOCK, (j + 1) * BLOCK)));
      }),
    );

  const grid = (pixel) => range(SIZE).map((row) => range(SIZE).map((column) => pixel(row, column)));

  return { read };
})();
