/* The paper: strokes by mouse, finger or pen, or by a pen that the arrow keys move. */
"use strict";

const digitsPaper = (() => {
  const { byId, svg } = page;
  const SIZE = 280, PEN = 22, NUDGE = 7, MARGIN = 10;

  let strokes = []; // of points [x, y]
  let instead = null; // or a picture of levels [8][8], which the next stroke replaces
  const pen = { x: SIZE / 2, y: 40, isDown: false, isSeen: false }; // of the keyboard

  /** `changed` is called with every point, `lifted` at the end of a stroke of the mouse. */
  function start(changed, lifted) {
    const paper = byId("paper");
    let pointer = null;
    paper.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || pointer !== null) return;
      event.preventDefault();
      paper.setPointerCapture(event.pointerId);
      pointer = event.pointerId;
      pen.isSeen = pen.isDown = false;
      begin(place(event));
      changed();
    });
    paper.addEventListener("pointermove", (event) => {
      if (event.pointerId !== pointer) return;
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length ? all : [event]) go(place(one));
      changed();
    });
    const lift = (event) => {
      if (event.pointerId !== pointer) return;
      pointer = null;
      lifted();
    };
    paper.addEventListener("pointerup", lift);
    paper.addEventListener("pointercancel", lift);
    paper.addEventListener("keydown", (event) => press(event) && changed());
    paper.addEventListener("blur", () => {
      pen.isSeen = pen.isDown = false;
      draw();
    });
  }

  function begin(point) {
    if (instead) show(null);
    strokes.push([point]);
  }

  /** A point more, unless it is nearly the last one again. */
  function go(point) {
    const [x, y] = strokes.at(-1).at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) >= 2) strokes.at(-1).push(point);
  }

  function place({ clientX, clientY }) {
    const box = byId("paper").getBoundingClientRect();
    return [((clientX - box.left) / box.width) * SIZE, ((clientY - box.top) / box.height) * SIZE];
  }

  /** Whether it was a key for the pen. */
  function press(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0] }[event.key];
    if (!by) return false;
    event.preventDefault();
    pen.isSeen = true;
    pen.x = inside(pen.x + NUDGE * by[0]);
    pen.y = inside(pen.y + NUDGE * by[1]);
    if (event.key === " ") pen.isDown = !pen.isDown;
    if (pen.isDown && event.key === " ") begin([pen.x, pen.y]);
    else if (pen.isDown) go([pen.x, pen.y]);
    return true;
  }

  const inside = (value) => Math.min(SIZE - MARGIN, Math.max(MARGIN, value));

  function draw() {
    const parts = instead ? blocks(instead, SIZE / 8) : strokes.map(line);
    if (!parts.length && !pen.isSeen) {
      const middle = { class: "hint", x: SIZE / 2, y: SIZE / 2, "text-anchor": "middle" };
      parts.push(svg("text", middle, ["a digit, as large as you like"]));
    }
    const radius = PEN / 2 + (pen.isDown ? 0 : 6);
    if (pen.isSeen) parts.push(svg("circle", { class: "pen", cx: pen.x, cy: pen.y, r: radius }));
    byId("paper").replaceChildren(...parts);
  }

  function line(stroke) {
    const ended = [...stroke, stroke.at(-1)]; // twice, so that a dot shows too
    const points = ended.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
    return svg("path", { class: "stroke", "stroke-width": PEN, d: `M${points.join("L")}` });
  }

  /** Levels as squares whose area is their ink. */
  function blocks(levels, size) {
    return levels.flatMap((row, y) =>
      row.map((level, x) => {
        const side = size * Math.sqrt(level / 16), edge = (size - side) / 2;
        return svg("rect", { class: "level", x: x * size + edge, y: y * size + edge, width: side, height: side });
      }),
    );
  }

  function undo() {
    if (instead) show(null);
    strokes.pop();
  }

  /** A picture in place of strokes, or null for an empty paper. */
  function show(levels) {
    strokes = [];
    instead = levels;
  }

  return { start, draw, blocks, undo, show, strokes: () => strokes, picture: () => instead };
})();
