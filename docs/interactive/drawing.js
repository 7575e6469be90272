/* A drawing as 8 x 8 levels, 0 to 16, the way the digits of the data set were made: the character is scaled to 20 x 32
 * pixels of a 32 x 32 bitmap, made thinner or thicker if it has too much or too little ink, sheared until the left ends
 * of its top and bottom rows stand above each other, and the pixels of each 4 x 4 block are counted. The first three are
 * those of NIST's form readers (Garris et al., NISTIR 5469, 1994), with its sizes and amounts of ink; which row a shear leaves
 * in place, and what happens at the border, is our choice. A drawing is a list of strokes, a stroke one of points [x, y]. */
"use strict";

var drawing = (function () {
  var SIZE = 32,
    WIDTH = 20,
    BLOCK = 4;
  var PEN = 0.07; // radius, as a share of the larger side of what the strokes span: ink as in the data set
  var NARROWEST = 0.3; // width to height, at least; a mouse draws straighter lines than pens do

  /** The bitmap [32][32] of a drawing, true for ink, and its levels [8][8]; null of an empty drawing. */
  function read(strokes) {
    var segments = segmentsOf(strokes);
    if (!segments.length) return null;
    var bitmap = shear(evenInk(scaled(segments)));
    return { bitmap: bitmap, levels: blockCounts(bitmap) };
  }

  /** Straight pieces [x0, y0, x1, y1]; a dot is one without length. */
  function segmentsOf(strokes) {
    var found = [];
    strokes.forEach(function (points) {
      points.forEach(function (point, i) {
        var before = points[Math.max(i - 1, 0)];
        if (i > 0 || points.length === 1) found.push([before[0], before[1], point[0], point[1]]);
      });
    });
    return found;
  }

  function scaled(segments) {
    var box = boundingBox(segments);
    var across = Math.max(box.right - box.left, box.bottom - box.top);
    var pen = (across || 1) * PEN;
    var height = box.bottom - box.top + 2 * pen;
    var width = Math.max(box.right - box.left + 2 * pen, NARROWEST * height);
    var left = (box.left + box.right - width) / 2,
      top = box.top - pen;
    return grid(function (row, column) {
      var x = left + ((column - (SIZE - WIDTH) / 2 + 0.5) / WIDTH) * width;
      var y = top + ((row + 0.5) / SIZE) * height;
      return segments.some(function (segment) {
        return distance(segment, x, y) <= pen;
      });
    });
  }

  function boundingBox(segments) {
    var xs = [],
      ys = [];
    segments.forEach(function (s) {
      xs.push(s[0], s[2]);
      ys.push(s[1], s[3]);
    });
    function least(values) {
      return values.reduce(function (a, b) {
        return Math.min(a, b);
      });
    }
    function most(values) {
      return values.reduce(function (a, b) {
        return Math.max(a, b);
      });
    }
    return { left: least(xs), right: most(xs), top: least(ys), bottom: most(ys) };
  }

  function distance(segment, x, y) {
    var dx = segment[2] - segment[0],
      dy = segment[3] - segment[1];
    var length = dx * dx + dy * dy;
    var along = length ? ((x - segment[0]) * dx + (y - segment[1]) * dy) / length : 0;
    along = Math.min(1, Math.max(0, along));
    return Math.hypot(x - segment[0] - along * dx, y - segment[1] - along * dy);
  }

  /** Strokes of a usual thickness: pixels are taken from or added to all edges, at most twice. */
  function evenInk(bitmap) {
    var ink = count(bitmap);
    var times = ink > 560 || ink < 108 ? 2 : ink > 412 || ink < 256 ? 1 : 0;
    for (var i = 0; i < times; i++) bitmap = ink > 412 ? eroded(bitmap) : dilated(bitmap);
    return bitmap;
  }

  function eroded(bitmap) {
    // what lies outside does not count against a pixel
    return grid(function (row, column) {
      return (
        bitmap[row][column] &&
        neighbors(bitmap, row, column).every(function (ink) {
          return ink !== false;
        })
      );
    });
  }

  function dilated(bitmap) {
    return grid(function (row, column) {
      return (
        bitmap[row][column] ||
        neighbors(bitmap, row, column).some(function (ink) {
          return ink;
        })
      );
    });
  }

  /** Above, below, left and right; undefined outside. */
  function neighbors(bitmap, row, column) {
    var above = bitmap[row - 1] || [],
      below = bitmap[row + 1] || [];
    return [above[column], below[column], bitmap[row][column - 1], bitmap[row][column + 1]];
  }

  /** Shifts the rows, those of the middle least, until the left ends of the first and the last with ink agree. */
  function shear(bitmap) {
    var top = bitmap.findIndex(hasInk);
    var bottom = SIZE - 1 - bitmap.slice().reverse().findIndex(hasInk);
    if (top < 0 || top === bottom) return bitmap;
    var slope = (bitmap[top].indexOf(true) - bitmap[bottom].indexOf(true)) / (bottom - top);
    return grid(function (row, column) {
      var shift = Math.round(slope * (row - (top + bottom) / 2));
      return bitmap[row][column - shift] === true;
    });
  }

  function hasInk(row) {
    return row.indexOf(true) >= 0;
  }

  function blockCounts(bitmap) {
    return range(SIZE / BLOCK).map(function (i) {
      return range(SIZE / BLOCK).map(function (j) {
        return count(
          bitmap.slice(i * BLOCK, (i + 1) * BLOCK).map(function (row) {
            return row.slice(j * BLOCK, (j + 1) * BLOCK);
          })
        );
      });
    });
  }

  function count(bitmap) {
    return bitmap.reduce(function (sum, row) {
      return sum + row.filter(Boolean).length;
    }, 0);
  }

  function grid(pixel) {
    return range(SIZE).map(function (row) {
      return range(SIZE).map(function (column) {
        return pixel(row, column);
      });
    });
  }

  function range(length) {
    return Array.from({ length: length }, function (_, i) {
      return i;
    });
  }

  return { read: read };
})();
