/* The page around the network: what it sees, says and fires, row by row. */
"use strict";

(() => {
  const { byId, svg, html, range, sum, plural, say } = page;
  const { facts } = network;

  let example = null; // the picture of the test set that is shown, if it is one
  let seen = null; // {levels, bitmap}, or null of an empty paper
  let run = null, stream = null; // what the network makes of it
  let row = facts.steps - 1; // the one that is looked at

  // ---- reading ----

  function read() {
    const picture = digitsPaper.picture();
    seen = picture ? { levels: picture, bitmap: null } : drawing.read(digitsPaper.strokes());
    if (!picture) example = null;
    run = seen && network.run(seen.levels);
    stream = seen && network.stream(seen.levels);
    row = facts.steps - 1;
    render();
  }

  let isWaiting = false;

  /** Reads before the next frame, once however many points came. */
  function readSoon() {
    play.stop();
    digitsPaper.draw();
    if (!isWaiting) {
      requestAnimationFrame(() => {
        isWaiting = false;
        if (!play.isPlaying()) read();
      });
    }
    isWaiting = true;
  }

  const play = page.player(byId("play"), 180, () => {
    row += 1;
    render();
    return row < facts.steps - 1;
  });

  function readAndPlay() {
    play.stop();
    read();
    if (!seen || window.matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    row = 0;
    play.start();
    render();
  }

  function putOnPaper(chosen) {
    example = chosen;
    digitsPaper.show(range(8).map((y) => range(8).map((x) => parseInt(example.levels[8 * y + x], 17))));
  }

  function showExample() {
    const others = facts.examples.filter((other) => other !== example);
    putOnPaper(others[Math.floor(Math.random() * others.length)]);
    readAndPlay();
  }

  // ---- showing ----

  function render() {
    byId("step").value = row + 1;
    byId("step-number").textContent = row + 1;
    digitsPaper.draw();
    drawSeen();
    drawAnswer();
    byId("layers").replaceChildren(...facts.layers.map(drawLayer));
  }

  function drawSeen() {
    const size = 26, side = 8 * size;
    const parts = range(9).flatMap((i) => [
      svg("line", { class: "grid-line", x1: 0, x2: side, y1: i * size, y2: i * size }),
      svg("line", { class: "grid-line", x1: i * size, x2: i * size, y1: 0, y2: side }),
    ]);
    const figures = [];
    let label = "An empty grid of 8 by 8";
    if (seen) {
      label = `8 rows of levels: ${seen.levels.map((line) => line.join(" ")).join("; ")}`;
      parts.push(...digitsPaper.blocks(seen.levels, size));
      parts.push(svg("rect", { class: "row-mark", x: 0, y: row * size, width: side, height: size }));
    }
    if (seen?.bitmap) figures.push(figure(96, pixels(seen.bitmap, 3), "The drawing, made even", "32 × 32"));
    figures.push(figure(side, parts, label, "8 × 8 levels, 0 to 16"));
    byId("seen").replaceChildren(...figures);
    byId("seen-text").textContent = seen ? `Row ${row + 1}: ${seen.levels[row].join(" ")}` : "";
  }

  function figure(size, parts, label, caption) {
    const box = { viewBox: `-2 -2 ${size + 4} ${size + 4}`, width: size + 4, role: "img", "aria-label": label };
    return html("figure", {}, [svg("svg", box, parts), html("figcaption", {}, [caption])]);
  }

  function pixels(bitmap, size) {
    const square = (x, y) => `M${x * size} ${y * size}h${size}v${size}h-${size}z`;
    const path = bitmap.flatMap((line, y) => line.map((ink, x) => (ink ? square(x, y) : "")));
    const side = 32 * size;
    return [
      svg("rect", { class: "off", x: 0, y: 0, width: side, height: side }),
      svg("path", { class: "level", d: path.join("") }),
    ];
  }

  /** The scores of the row that is looked at; the answer in words is the last row's. */
  function drawAnswer() {
    const now = stream?.[row];
    byId("digit").textContent = now?.answer ?? "?";
    byId("when").textContent = now ? `after row ${row + 1}` : "";
    const truth = example ? ` The test set says ${example.digit}. Draw over it to try a digit of your own.` : "";
    const hint = "Draw a digit, or have one shown from the test set.";
    say(byId("answer"), seen ? `It reads a ${run.answer}.${truth}` : hint);
    const scores = range(10).map((k) => (now ? now.scores[k] * facts.unit : 0));
    const least = Math.min(...scores), most = Math.max(...scores);
    const bars = scores.map((score, k) => {
      const share = ((score - least) / (most - least || 1)) * 100;
      return html("li", { class: now?.answer === k ? "best" : "" }, [
        html("span", {}, [k]),
        html("span", { class: "track-bar" }, [html("i", { style: `width: ${share.toFixed(1)}%` })]),
        html("span", { class: "number" }, [now ? score.toFixed(2).replace("-", "\u2212") : "\u2013"]),
      ]);
    });
    byId("scores").replaceChildren(...bars);
  }

  /** The spikes of a layer up to this row, time downwards, a column for each neuron. */
  function drawLayer({ neurons, order }, i) {
    const wide = 3, high = 26, spikes = run?.spikes[i];
    const parts = range(facts.steps).flatMap((t) => {
      const top = t * high, isNow = seen !== null && t === row;
      const back = { x: 0, y: top + 1, width: wide * neurons, height: high - 2, rx: 3 };
      const found = [svg("rect", { class: `raster-back${isNow ? " now" : ""}`, ...back })];
      if (spikes && t <= row) {
        const marks = spikes[t].map((spike, n) => (spike ? `M${n * wide} ${top + 4}h2v${high - 8}h-2z` : ""));
        found.push(svg("path", { class: `raster-row ${isNow ? "now" : "seen"}`, d: marks.join("") || "M0 0" }));
      }
      return found;
    });
    const counts = spikes?.map(sum);
    const text = spikes ? `${plural(counts[row], "spike")} in row ${row + 1}, ${sum(counts)} in all` : "no spikes yet";
    const name = `Layer ${i + 1}`, viewBox = `0 0 ${wide * neurons} ${facts.steps * high}`;
    const box = { viewBox, role: "img", "aria-label": `${name}: ${text}` };
    const caption = [html("b", {}, [name]), ` · ${neurons} neurons, K = ${order} · ${text}`];
    return html("figure", {}, [svg("svg", box, parts), html("figcaption", {}, caption)]);
  }

  function tell() {
    byId("wasm-size").textContent = `${Math.round(network.bytes / 1024)} KB`;
    byId("test-images").textContent = facts.images;
    byId("test-accuracy").textContent = `${facts.accuracy.toFixed(1)}%`;
    const kept = facts.layers.slice(1).map(({ order }, i) => `${order - 1} spikes of each neuron of layer ${i + 1}`);
    byId("memory").textContent =
      `Between two rows it keeps ${facts.stateBits.toLocaleString("en")} bits: ${kept.join(", ")}. No potential.`;
  }

  function start() {
    const press = (id, action) => byId(id).addEventListener("click", action);
    press("clear", () => (digitsPaper.show(null), play.stop(), read()));
    press("undo", () => (digitsPaper.undo(), play.stop(), read()));
    press("example", showExample);
    press("play", () => (play.isPlaying() ? play.stop() : readAndPlay()));
    byId("step").max = facts.steps;
    byId("step").addEventListener("input", () => {
      play.stop();
      row = Number(byId("step").value) - 1;
      render();
    });
    digitsPaper.start(readSoon, readAndPlay);
    tell();
    putOnPaper(facts.examples[0]); // something to look at before the first stroke
    read();
  }

  network.ready.then(start);
})();
