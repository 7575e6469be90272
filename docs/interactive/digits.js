/* The page around drawing.js and network.js: paper, picture, answer, spikes. */
"use strict";

(function () {
  var PAPER = 280,
    PEN = 22,
    NUDGE = 7;
  var byId = page.byId,
    svg = page.svg,
    html = page.html,
    range = page.range;
  var STEPS = network.facts.steps;

  var strokes = []; // of points [x, y]
  var example = null; // or a picture of the test set
  var shown = null; // what the network made of it: picture, run, stream
  var row = STEPS - 1; // the row that is looked at

  // ---- drawing ----

  var pen = { x: PAPER / 2, y: 40, down: false, visible: false };

  function startPaper() {
    var paper = byId("paper"),
      drawing = null;
    paper.addEventListener("pointerdown", function (event) {
      if (event.button !== 0) return;
      event.preventDefault();
      paper.focus({ preventScroll: true });
      stop();
      if (example) strokes = [];
      example = null;
      pen.visible = pen.down = false;
      drawing = event.pointerId;
      paper.setPointerCapture(drawing);
      strokes.push([place(event)]);
      read();
    });
    paper.addEventListener("pointermove", function (event) {
      if (event.pointerId !== drawing) return;
      var events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      (events.length ? events : [event]).forEach(function (one) {
        draw(place(one));
      });
      drawPaper();
      soon();
    });
    ["pointerup", "pointercancel"].forEach(function (name) {
      paper.addEventListener(name, function (event) {
        if (event.pointerId === drawing) {
          drawing = null;
          play();
        }
      });
    });
    paper.addEventListener("keydown", onKey);
    paper.addEventListener("blur", function () {
      pen.visible = pen.down = false;
      drawPaper();
    });
  }

  /** Adds a point to the last stroke, unless it is nearly the last point again. */
  function draw(point) {
    var stroke = strokes[strokes.length - 1],
      last = stroke[stroke.length - 1];
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) >= 2) stroke.push(point);
  }

  function place(event) {
    var box = byId("paper").getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * PAPER, ((event.clientY - box.top) / box.height) * PAPER];
  }

  function onKey(event) {
    var moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) {
        if (example) strokes = [];
        example = null;
        strokes.push([[pen.x, pen.y]]);
      }
    } else if (moves[event.key]) {
      pen.x = Math.min(PAPER - 10, Math.max(10, pen.x + NUDGE * moves[event.key][0]));
      pen.y = Math.min(PAPER - 10, Math.max(10, pen.y + NUDGE * moves[event.key][1]));
      if (pen.down) draw([pen.x, pen.y]);
    } else {
      return;
    }
    event.preventDefault();
    stop();
    pen.visible = true;
    read();
  }

  function drawPaper() {
    var parts = strokes.map(function (stroke) {
      var path = stroke.map(function (point) {
        return point[0].toFixed(1) + " " + point[1].toFixed(1);
      });
      return svg("path", { class: "stroke", "stroke-width": PEN, d: "M" + path.concat(path.slice(-1)).join("L") });
    });
    if (example) parts = blocks(example.levels, PAPER / 8);
    if (!parts.length && !pen.visible) {
      parts.push(
        svg("text", { class: "hint", x: PAPER / 2, y: PAPER / 2, "text-anchor": "middle" }, [
          "a digit, as large as you like",
        ])
      );
    }
    if (pen.visible)
      parts.push(svg("circle", { class: "pen", cx: pen.x, cy: pen.y, r: pen.down ? PEN / 2 : PEN / 2 + 6 }));
    byId("paper").replaceChildren.apply(byId("paper"), parts);
  }

  // ---- reading ----

  function read() {
    var picture = example ? { levels: example.levels, bitmap: null } : drawing.read(strokes);
    shown = picture && { picture: picture, run: network.run(picture.levels), stream: network.stream(picture.levels) };
    row = STEPS - 1;
    render();
  }

  var waiting = false;

  /** Reads before the next frame, once however many points came. */
  function soon() {
    if (!waiting)
      requestAnimationFrame(function () {
        waiting = false;
        if (playing === null) read();
      });
    waiting = true;
  }

  function nextExample() {
    var examples = network.facts.examples,
      which = Math.floor(Math.random() * examples.length);
    if (example && example.which === which) which = (which + 1) % examples.length;
    var found = examples[which];
    var levels = range(8).map(function (y) {
      return range(8).map(function (x) {
        return parseInt(found.levels[8 * y + x], 17);
      });
    });
    strokes = [];
    example = { which: which, digit: found.digit, levels: levels };
    read();
    play();
  }

  var playing = null;

  function play() {
    stop();
    if (!shown || window.matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    row = 0;
    byId("play").textContent = "Pause";
    playing = setInterval(function () {
      row += 1;
      if (row === STEPS - 1) stop();
      render();
    }, 180);
    render();
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    byId("play").textContent = "Play";
  }

  // ---- showing ----

  function render() {
    drawPaper();
    byId("step").value = row + 1;
    byId("step-number").textContent = row + 1;
    drawSeen();
    drawAnswer();
    drawLayers();
  }

  /** Levels as squares whose area is their ink. */
  function blocks(levels, size) {
    return levels.flatMap(function (line, y) {
      return line.map(function (level, x) {
        var side = size * Math.sqrt(level / 16),
          at = (size - side) / 2;
        return svg("rect", { class: "level", x: x * size + at, y: y * size + at, width: side, height: side });
      });
    });
  }

  function drawSeen() {
    var size = 26,
      parts = range(9).flatMap(function (i) {
        return [
          svg("line", { class: "grid-line", x1: 0, x2: 8 * size, y1: i * size, y2: i * size }),
          svg("line", { class: "grid-line", x1: i * size, x2: i * size, y1: 0, y2: 8 * size }),
        ];
      });
    if (shown) {
      parts = parts.concat(blocks(shown.picture.levels, size));
      parts.push(svg("rect", { class: "row-mark", x: 0, y: row * size, width: 8 * size, height: size }));
    }
    var label = shown
      ? "8 rows of levels: " +
        shown.picture.levels
          .map(function (line) {
            return line.join(" ");
          })
          .join("; ")
      : "An empty grid of 8 by 8";
    var figures = [figure(8 * size, parts, label, "8 \u00d7 8 levels, 0 to 16")];
    if (shown && shown.picture.bitmap) {
      figures.unshift(figure(96, pixels(shown.picture.bitmap, 3), "The drawing, made even", "32 \u00d7 32, made even"));
    }
    byId("seen").replaceChildren.apply(byId("seen"), figures);
    byId("seen-text").textContent = shown ? "Row " + (row + 1) + ": " + shown.picture.levels[row].join(" ") : "";
  }

  function figure(size, parts, label, caption) {
    var picture = svg(
      "svg",
      { viewBox: "-2 -2 " + (size + 4) + " " + (size + 4), width: size + 4, role: "img", "aria-label": label },
      parts
    );
    return html("figure", {}, [picture, html("figcaption", {}, [caption])]);
  }

  function pixels(bitmap, size) {
    var path = bitmap.flatMap(function (line, y) {
      return line.map(function (ink, x) {
        return ink ? "M" + x * size + " " + y * size + "h" + size + "v" + size + "h-" + size + "z" : "";
      });
    });
    return [
      svg("rect", { class: "off", x: 0, y: 0, width: 32 * size, height: 32 * size }),
      svg("path", { class: "level", d: path.join("") }),
    ];
  }

  function drawAnswer() {
    var now = shown ? shown.stream[row] : null;
    byId("digit").textContent = now ? now.answer : "?";
    byId("when").textContent = now ? "after row " + (row + 1) : "";
    var words = "Draw a digit, or have one shown from the test set.";
    if (shown)
      words = "It reads a " + shown.run.answer + "." + (example ? " The test set says " + example.digit + "." : "");
    if (byId("answer").textContent !== words) byId("answer").textContent = words;
    byId("scores").replaceChildren.apply(byId("scores"), scoreBars(now));
  }

  function scoreBars(now) {
    var values = range(10).map(function (k) {
      return now ? now.scores[k] * network.facts.unit : 0;
    });
    var least = Math.min.apply(null, values),
      most = Math.max.apply(null, values);
    return values.map(function (value, k) {
      var share = now ? (value - least) / (most - least || 1) : 0;
      return html("li", { class: now && now.answer === k ? "best" : "" }, [
        html("span", {}, [String(k)]),
        html("span", { class: "track-bar" }, [html("i", { style: "width:" + (100 * share).toFixed(1) + "%" })]),
        html("span", { class: "number" }, [now ? value.toFixed(2).replace("-", "\u2212") : "\u2013"]),
      ]);
    });
  }

  /** The picture and the layers side by side, row beside row. */
  function drawLayers() {
    var parts = network.facts.layers.map(function (layer, i) {
      var fired = shown
        ? shown.run.spikes[i].map(function (spikes) {
            return spikes.reduce(function (a, b) {
              return a + b;
            });
          })
        : [];
      var total = fired.reduce(function (a, b) {
        return a + b;
      }, 0);
      var text = shown
        ? page.plural(fired[row], "spike") + " in row " + (row + 1) + ", " + total + " in all"
        : "no spikes yet";
      var caption = html("figcaption", {}, [
        html("b", {}, ["Layer " + (i + 1)]),
        " \u00b7 " + layer.neurons + " neurons, K = " + layer.order + " \u00b7 " + text,
      ]);
      return html("figure", {}, [
        raster(layer, shown && shown.run.spikes[i], "Layer " + (i + 1) + ": " + text),
        caption,
      ]);
    });
    byId("layers").replaceChildren.apply(byId("layers"), parts);
  }

  function raster(layer, spikes, label) {
    var wide = 3,
      high = 26,
      width = wide * layer.neurons,
      parts = [];
    range(STEPS).forEach(function (t) {
      var top = t * high,
        now = shown && t === row;
      parts.push(
        svg("rect", {
          class: "raster-back" + (now ? " now" : ""),
          x: 0,
          y: top + 1,
          width: width,
          height: high - 2,
          rx: 3,
        })
      );
      if (!spikes) return;
      var marks = spikes[t].map(function (spike, n) {
        return spike ? "M" + n * wide + " " + (top + 4) + "h2v" + (high - 8) + "h-2z" : "";
      });
      if (t <= row)
        parts.push(svg("path", { class: "raster-row " + (now ? "now" : "seen"), d: marks.join("") || "M0 0" }));
    });
    return svg("svg", { viewBox: "0 0 " + width + " " + STEPS * high, role: "img", "aria-label": label }, parts);
  }

  function tell() {
    var facts = network.facts;
    byId("wasm-size").textContent = Math.round(network.bytes / 1024) + " KB";
    byId("test-images").textContent = facts.images;
    byId("test-accuracy").textContent = facts.accuracy.toFixed(1) + "%";
    byId("memory").textContent =
      "Between two rows it keeps " +
      facts.stateBits.toLocaleString("en") +
      " bits: " +
      facts.layers
        .slice(1)
        .map(function (layer, i) {
          return layer.order - 1 + " spikes of each neuron of layer " + (i + 1);
        })
        .join(", ") +
      ". No potential.";
  }

  function start() {
    byId("step").max = STEPS;
    byId("step").addEventListener("input", function () {
      stop();
      row = Number(this.value) - 1;
      render();
    });
    byId("play").addEventListener("click", function () {
      if (playing) {
        stop();
        render();
      } else play();
    });
    byId("clear").addEventListener("click", function () {
      stop();
      strokes = [];
      example = null;
      read();
    });
    byId("undo").addEventListener("click", function () {
      stop();
      strokes.pop();
      example = null;
      read();
    });
    byId("example").addEventListener("click", nextExample);
    tell();
    startPaper();
    read();
  }

  network.ready.then(start);
})();
