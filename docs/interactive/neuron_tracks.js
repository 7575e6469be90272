/* Time to the right: input to click, and of each neuron its spikes, potentials and what it keeps. */
"use strict";

const neuronTracks = (() => {
  const { byId, svg, html, number, range, plural } = page;
  const { STEPS, INPUTS } = neuronScenes;
  const SPIKES = 20, PLOT = 104, GAP = 8, BIT = 10; // heights in a neuron's track

  const rows = { steps: null, cells: [], free: null, lif: null };
  let act = null; // what clicks do: put(input, step, spike), follow(input, step), look(step)

  /** Rows and buttons for so many inputs; made anew only when their number changes, so that the focus stays. */
  function build(inputs, actions) {
    act = actions;
    byId("tracks").querySelectorAll(".track").forEach((track) => track.remove());
    rows.steps = track("", []);
    rows.cells = range(inputs).map((i) => {
      const hint = html("small", {}, [i ? "" : "click to add a spike"]);
      const row = track("", [html("b", {}, [`Input ${INPUTS[i]}`]), hint]);
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", `Spikes of input ${INPUTS[i]}; arrow keys move, space switches`);
      return range(STEPS).map((t) => cell(row, i, t));
    });
    rows.free = track("neuron", [html("b", { class: "free" }, ["Memory-free"]), html("small")]);
    rows.lif = track("neuron", [html("b", { class: "lif" }, ["LIF"]), html("small")]);
  }

  function track(name, label) {
    const content = html("div", { class: "cells" });
    byId("tracks").append(html("div", { class: `track ${name}` }, [html("div", { class: "label" }, label), content]));
    return content;
  }

  function cell(row, input, t) {
    const name = `Input ${INPUTS[input]}, step ${t}`;
    const button = html("button", { type: "button", class: "cell", tabindex: t === 0 ? 0 : -1, "aria-label": name });
    button.addEventListener("click", () => act.put(input, t, button.getAttribute("aria-pressed") === "true" ? 0 : 1));
    button.addEventListener("focus", () => act.follow(input, t));
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && act.follow(input, t));
    button.addEventListener("keydown", (event) => move(event, input, t));
    row.append(button);
    return button;
  }

  function move(event, input, t) {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const [down, right] = { ...by, Home: [0, -t], End: [0, STEPS - 1 - t] }[event.key] ?? [];
    const target = rows.cells[input + down]?.[t + right];
    if (!target) return;
    event.preventDefault();
    rows.cells[input][t].tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }

  const gutter = () => (window.matchMedia("(max-width: 700px)").matches ? 0 : 148);

  function columnWidth() {
    const scroll = byId("scroll"), style = getComputedStyle(scroll);
    const room = scroll.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - gutter();
    return Math.max(24, Math.floor(room / STEPS));
  }

  function draw(state, found) {
    const width = columnWidth();
    byId("cursor").style.left = `${gutter() + state.step * width}px`;
    byId("cursor").style.width = `${width}px`;
    const numbers = range(STEPS).map((t) => svg("text", { x: (t + 0.5) * width, y: 11, "text-anchor": "middle" }, [t]));
    rows.steps.replaceChildren(picture(width, 14, "", numbers));
    rows.cells.forEach((row, i) =>
      row.forEach((button, t) => {
        button.style.width = `${width}px`;
        button.setAttribute("aria-pressed", String(Boolean(state.spikes[i][t])));
        button.classList.toggle("followed", follows(state, i, t));
      }),
    );
    drawFree(state, found, width);
    drawLif(state, found, width);
  }

  const follows = ({ follow }, input, step) => follow !== null && follow.input === input && follow.step === step;

  function drawFree(state, { free, freeWithout }, width) {
    const keeps = (state.order - 1) * state.inputs + state.ownOrder;
    const own = state.ownOrder ? ["its own last R"] : [];
    const registers = state.order > 1 ? ["the last K − 1 spikes, newest on top"] : [];
    label(rows.free, keeps, [...registers, ...own].join("; below "));
    const parts = plot(state, free, freeWithout, width, "free");
    const height = keeps > 14 ? 7 : BIT;
    let y = SPIKES + PLOT + GAP;
    for (const i of range(state.inputs)) {
      for (const j of range(state.order - 1)) {
        for (const t of range(STEPS)) {
          const kind = follows(state, i, t - j) ? "on-follow" : free.registers[t][i][j] ? "on-free" : "off";
          parts.push(bit(t, y, width, height, kind));
        }
        y += height;
      }
      y += 4;
    }
    for (const j of range(state.ownOrder)) {
      for (const t of range(STEPS)) parts.push(bit(t, y, width, height, free.own[t][j] ? "on-free" : "off"));
      y += height;
    }
    rows.free.replaceChildren(picture(width, y, described("Memory-free neuron", free), parts));
  }

  function drawLif(state, { lif, lifWithout }, width) {
    label(rows.lif, state.bits, "the potential's code, highest bit on top");
    const parts = plot(state, lif, lifWithout, width, "lif");
    const top = SPIKES + PLOT + GAP;
    for (const t of range(STEPS)) {
      const without = lifWithout && neuronModel.bitsOf(lifWithout.codes[t], state.bits);
      neuronModel.bitsOf(lif.codes[t], state.bits).forEach((value, i) => {
        const differs = without && value !== without[i];
        const kind = differs ? (value ? "on-follow" : "off-follow") : value ? "on-lif" : "off";
        parts.push(bit(t, top + BIT * i, width, BIT, kind));
      });
    }
    rows.lif.replaceChildren(picture(width, top + BIT * state.bits + 4, described("LIF", lif), parts));
  }

  function label(content, keeps, what) {
    const end = keeps ? `: ${what}` : ": it knows this step alone";
    content.parentNode.querySelector("small").replaceChildren("keeps ", html("b", {}, [plural(keeps, "bit")]), end);
  }

  function described(name, { fired }) {
    const steps = range(STEPS).filter((t) => fired[t]);
    const said = steps.length ? `fires at steps ${steps.join(", ")}` : "never fires";
    return `${name}: ${said}. The step slider below tells every number.`;
  }

  function picture(width, height, name, parts) {
    const spoken = name ? { role: "img", "aria-label": name } : { "aria-hidden": "true" };
    const size = { width: STEPS * width, height, viewBox: `0 0 ${STEPS * width} ${height}` };
    const made = svg("svg", { ...size, ...spoken }, parts);
    made.addEventListener("pointerdown", (event) => {
      const t = Math.floor((event.clientX - made.getBoundingClientRect().left) / width);
      act.look(Math.min(STEPS - 1, Math.max(0, t)));
    });
    return made;
  }

  const bit = (t, y, width, height, kind) =>
    svg("rect", { x: t * width + 1.5, y: y + 0.75, width: width - 3, height: height - 1.5, rx: 2, class: kind });

  /** Spikes on top, potentials as bars; where the followed spike makes a difference, what it would be without. */
  function plot(state, neuron, without, width, kind) {
    const threshold = state.threshold / 16;
    const seen = [...neuron.potential, ...(without ? without.potential : []), 0, 1.12 * threshold];
    const least = Math.min(...seen), most = Math.max(...seen);
    const y = (value) => SPIKES + 4 + ((PLOT - 8) * (most - value)) / (most - least);
    const level = (value, from, to, name) =>
      svg("line", { x1: from * width, x2: to * width, y1: y(value), y2: y(value), class: name });
    const parts = kept(state, neuron).filter((value) => value >= least && value <= most);
    return [
      ...parts.map((value) => level(value, 0, STEPS, "code")),
      level(0, 0, STEPS, "axis"),
      ...neuron.potential.flatMap((u, t) => step(u, t)),
      level(threshold, 0, STEPS, "threshold"),
      svg("text", { x: 3, y: y(threshold) - 4 }, [`θ = ${number(threshold)}`]),
    ];

    function step(u, t) {
      const fired = neuron.fired[t], top = y(Math.max(u, 0)), height = y(Math.min(u, 0)) - top;
      const name = (fired ? "on-" : "bar-") + kind;
      const found = [svg("rect", { x: t * width + 3, y: top, width: width - 6, height, class: name })];
      if (fired) {
        const spike = { x: (t + 0.5) * width - 2.5, y: 1, width: 5, height: SPIKES - 4, rx: 2, class: `on-${kind}` };
        found.push(svg("rect", spike));
      }
      if (neuron.codes) found.push(level(neuron.codes[t] * neuron.scale, t + 0.7, Math.min(STEPS, t + 1.3), "kept"));
      if (without && without.potential[t] !== u) found.push(level(without.potential[t], t + 0.1, t + 0.9, "without"));
      return found;
    }
  }

  /** The levels that a potential can be kept at, unless they are too many to see. */
  function kept(state, { codes, scale, lowest, highest }) {
    if (!codes || state.bits > 5) return [];
    return range(highest - lowest + 1).map((i) => (lowest + i) * scale);
  }

  return { build, draw, follows };
})();
