/* The page around neuron_model.js: controls, tracks over time, one step looked at closely. */
"use strict";

(function () {
  var T = 24,
    INPUTS = ["A", "B", "C"];
  var SPIKES = 20,
    PLOT = 104,
    GAP = 8; // heights in a neuron's track
  var byId = page.byId,
    svg = page.svg,
    html = page.html,
    number = page.number,
    range = page.range;

  /* Everything that is set; numbers are sixteenths where SLIDERS says so. */
  var state = {
    decay: 14,
    threshold: 16,
    inputs: 1,
    weights: [12, 8, -8],
    order: 8,
    bits: 2,
    spikes: [],
    step: 0,
    follow: null,
  };

  var SLIDERS = [
    { key: "decay", place: "shared", name: "Decay d", least: 0, most: 16, over: 16 },
    { key: "threshold", place: "shared", name: "Threshold θ", least: 4, most: 32, over: 16 },
    { key: "inputs", place: "shared", name: "Inputs", least: 1, most: 3, over: 1 },
    { key: "weight0", place: "shared", name: "Strength of A", least: -32, most: 32, over: 16, input: 0 },
    { key: "weight1", place: "shared", name: "Strength of B", least: -32, most: 32, over: 16, input: 1 },
    { key: "weight2", place: "shared", name: "Strength of C", least: -32, most: 32, over: 16, input: 2 },
    { key: "order", place: "free", name: "Order K", least: 1, most: 10, over: 1 },
    { key: "bits", place: "lif", name: "Bits b", least: 1, most: 8, over: 1 },
  ];

  var SCENES = [
    {
      name: "Small inputs",
      text:
        "Every spike is worth less than half a level of the 2-bit potential: each is rounded away as it comes. The register keeps " +
        "them all and adds them up. Give the LIF a third bit and it charges, but sticks to its highest level; with four bits it fires.",
      set: { decay: 15, threshold: 16, inputs: 1, weights: [3, 8, -8], order: 10, bits: 2 },
      trains: [at(1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 18, 19, 20, 21)],
      follow: [0, 1],
    },
    {
      name: "Was there a spike?",
      text:
        "B asks whether A came shortly before. The memory-free neuron says yes at step 8 and no at step 18. The 2-bit potential " +
        "clips what A left and misses the yes. With 3 bits it says yes; but take away B's first spike, and it says yes at step 18 as well: " +
        "stuck to its level, it no longer knows when A came.",
      set: { decay: 15, threshold: 16, inputs: 2, weights: [12, 8, -8], order: 8, bits: 2 },
      trains: [at(2), at(8, 18)],
      follow: [0, 2],
    },
    {
      name: "Rhythm",
      text:
        "With d = ½ each register is a binary number that is halved at every step: follow a spike down its diagonal. The 3-bit " +
        "potential is rounded up just often enough to fire at steps 6 and 18 too. With a fourth bit it does not.",
      set: { decay: 8, threshold: 16, inputs: 2, weights: [10, 7, -8], order: 8, bits: 3 },
      trains: [every(3, 0), every(4, 1)],
      follow: [0, 6],
    },
    {
      name: "Steady input: the LIF is better",
      text:
        "A spike at every step. The LIF charges, fires, charges again: move the strength of A and its rate follows. The " +
        "memory-free neuron has no reset and fires for as long as its potential is over the threshold.",
      set: { decay: 14, threshold: 16, inputs: 1, weights: [6, 8, -8], order: 8, bits: 5 },
      trains: [every(1, 0)],
      follow: null,
    },
    {
      name: "Counting: the LIF is better",
      text:
        "No decay, eight spikes wanted, one every third step. Four bits of potential count them without an error. The register " +
        "sees three spikes at a time, and would need an order of 22.",
      set: { decay: 16, threshold: 16, inputs: 1, weights: [2, 8, -8], order: 8, bits: 4 },
      trains: [every(3, 0)],
      follow: [0, 0],
    },
  ];

  function every(period, first) {
    return range(T).map(function (t) {
      return t >= first && (t - first) % period === 0 ? 1 : 0;
    });
  }

  function at() {
    var steps = Array.from(arguments);
    return range(T).map(function (t) {
      return steps.indexOf(t) >= 0 ? 1 : 0;
    });
  }

  function silent() {
    return range(T).map(function () {
      return 0;
    });
  }

  // ---- what is set, in numbers ----

  /** What neuronModel takes; without the followed spike if asked. */
  function given(withoutFollowed) {
    var spikes = state.spikes.slice(0, state.inputs).map(function (train) {
      return train.slice();
    });
    if (withoutFollowed) spikes[state.follow.input][state.follow.step] = 0;
    return {
      decay: state.decay / 16,
      threshold: state.threshold / 16,
      order: state.order,
      bits: state.bits,
      weights: state.weights.slice(0, state.inputs).map(function (weight) {
        return weight / 16;
      }),
      spikes: spikes,
    };
  }

  function computed() {
    var now = given(false),
      found = { free: neuronModel.memoryFree(now), lif: neuronModel.lif(now), given: now };
    if (state.follow) {
      found.freeWithout = neuronModel.memoryFree(given(true));
      found.lifWithout = neuronModel.lif(given(true));
    }
    return found;
  }

  function follows(input, step) {
    return state.follow !== null && state.follow.input === input && state.follow.step === step;
  }

  // ---- controls ----

  function buildControls() {
    SLIDERS.forEach(function (slider) {
      slider.range = html("input", { type: "range", id: slider.key, min: slider.least, max: slider.most, step: 1 });
      slider.output = html("output", { for: slider.key });
      slider.box = html("div", { class: "slider" }, [
        html("label", { for: slider.key }, [slider.name, slider.output]),
        slider.range,
      ]);
      slider.range.addEventListener("input", function () {
        set(slider, Number(slider.range.value));
        render();
      });
      byId(slider.place + "-controls").append(slider.box);
    });
    SCENES.forEach(function (scene, i) {
      scene.button = html("button", { type: "button", "aria-pressed": "false" }, [scene.name]);
      scene.button.addEventListener("click", function () {
        show(SCENES[i]);
      });
      byId("scenes").append(scene.button);
    });
    byId("step").max = T - 1;
    byId("step").addEventListener("input", function () {
      stop();
      state.step = Number(this.value);
      render();
    });
    byId("play").addEventListener("click", function () {
      if (playing) stop();
      else play();
    });
    byId("clear").addEventListener("click", function () {
      feed(silent);
    });
    byId("random").addEventListener("click", function () {
      feed(function () {
        return range(T).map(function () {
          return Math.random() < 0.3 ? 1 : 0;
        });
      });
    });
  }

  function set(slider, value) {
    if (slider.input === undefined) state[slider.key] = value;
    else state.weights[slider.input] = value;
    if (slider.key === "inputs") {
      if (state.follow && state.follow.input >= value) state.follow = null;
      buildTracks();
    }
  }

  function get(slider) {
    return slider.input === undefined ? state[slider.key] : state.weights[slider.input];
  }

  function feed(train) {
    state.spikes = INPUTS.map(train);
    state.follow = null;
    range(state.inputs).some(function (i) {
      var first = state.spikes[i].indexOf(1);
      if (first >= 0) state.follow = { input: i, step: first };
      return first >= 0;
    });
    render();
  }

  function show(scene) {
    stop();
    Object.assign(state, scene.set, { weights: scene.set.weights.slice() });
    state.spikes = INPUTS.map(function (_, i) {
      return scene.trains[i] ? scene.trains[i].slice() : silent();
    });
    state.follow = scene.follow && { input: scene.follow[0], step: scene.follow[1] };
    state.step = state.follow ? Math.min(T - 1, state.follow.step + 6) : 10;
    SCENES.forEach(function (other) {
      other.button.setAttribute("aria-pressed", String(other === scene));
    });
    byId("scene-text").textContent = scene.text;
    buildTracks();
    render();
  }

  var playing = null;

  function play() {
    if (state.step === T - 1) state.step = 0;
    byId("play").textContent = "Pause";
    playing = setInterval(function () {
      state.step += 1;
      if (state.step >= T - 1) stop();
      render();
    }, 450);
    render();
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    byId("play").textContent = "Play";
  }

  // ---- tracks over time ----

  var tracks = {};

  /** Rows and buttons; made anew only when the number of inputs changes, so that the focus stays. */
  function buildTracks() {
    var root = byId("tracks");
    root.querySelectorAll(".track").forEach(function (track) {
      track.remove();
    });
    tracks = { steps: track(root, "", []), cells: [] };
    range(state.inputs).forEach(function (i) {
      var row = track(root, "", [
        html("b", {}, ["Input " + INPUTS[i]]),
        html("small", {}, [i ? "" : "click to add a spike"]),
      ]);
      tracks.cells.push(
        range(T).map(function (t) {
          return cell(row, i, t);
        })
      );
    });
    tracks.free = track(root, "neuron", [html("b", { class: "free" }, ["Memory-free"]), html("small", {})]);
    tracks.lif = track(root, "neuron", [html("b", { class: "lif" }, ["LIF"]), html("small", {})]);
  }

  function track(root, name, label) {
    var content = html("div", { class: "cells" });
    root.append(html("div", { class: "track " + name }, [html("div", { class: "label" }, label), content]));
    return content;
  }

  function cell(row, input, t) {
    var button = html("button", {
      type: "button",
      class: "cell",
      tabindex: t === 0 ? 0 : -1,
      "data-input": input,
      "data-step": t,
    });
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", "Spikes of input " + INPUTS[input] + "; arrow keys move, space switches");
    button.addEventListener("click", function () {
      put(input, t, 1 - state.spikes[input][t]);
    });
    button.addEventListener("focus", function () {
      follow(input, t);
    });
    button.addEventListener("pointerenter", function (event) {
      if (event.pointerType === "mouse") follow(input, t);
    });
    button.addEventListener("keydown", function (event) {
      move(event, input, t);
    });
    row.append(button);
    return button;
  }

  function put(input, t, spike) {
    state.spikes[input][t] = spike;
    state.step = t;
    if (spike) state.follow = { input: input, step: t };
    else if (follows(input, t)) state.follow = null;
    render();
  }

  function follow(input, t) {
    if (!state.spikes[input][t] || follows(input, t)) return;
    state.follow = { input: input, step: t };
    render();
  }

  function move(event, input, t) {
    var to = {
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      Home: [0, -t],
      End: [0, T - 1 - t],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    var row = tracks.cells[input + to[0]],
      target = row && row[t + to[1]];
    if (!target) return;
    tracks.cells[input][t].tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }

  function columnWidth() {
    var scroll = byId("scroll"),
      style = getComputedStyle(scroll);
    var room = scroll.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - gutter();
    return Math.max(24, Math.floor(room / T));
  }

  function gutter() {
    return window.matchMedia("(max-width: 700px)").matches ? 0 : 148;
  }

  function drawTracks(found) {
    var width = columnWidth();
    byId("cursor").style.left = gutter() + state.step * width + "px";
    byId("cursor").style.width = width + "px";
    tracks.steps.replaceChildren(
      picture(
        width,
        14,
        "",
        range(T).map(function (t) {
          return svg("text", { x: (t + 0.5) * width, y: 11, "text-anchor": "middle" }, [String(t)]);
        })
      )
    );
    tracks.cells.forEach(function (row, i) {
      row.forEach(function (button, t) {
        button.style.width = width + "px";
        button.setAttribute("aria-pressed", String(Boolean(state.spikes[i][t])));
        button.setAttribute("aria-label", "Input " + INPUTS[i] + ", step " + t);
        button.classList.toggle("followed", follows(i, t));
      });
    });
    drawFree(found, width);
    drawLif(found, width);
  }

  function drawFree(found, width) {
    var keeps = (state.order - 1) * state.inputs;
    label(tracks.free, keeps, "the last K − 1 spikes, newest on top");
    var parts = plot(found.free, found.freeWithout, width, "free");
    var height = keeps > 14 ? 7 : 10,
      y = SPIKES + PLOT + GAP;
    range(state.inputs).forEach(function (i) {
      range(state.order - 1).forEach(function (j) {
        range(T).forEach(function (t) {
          var kind = follows(i, t - j) ? "on-follow" : found.free.registers[t][i][j] ? "on-free" : "off";
          parts.push(bit(t, y, width, height, kind));
        });
        y += height;
      });
      y += 4;
    });
    tracks.free.replaceChildren(picture(width, y, described("Memory-free neuron", found.free), parts));
  }

  function drawLif(found, width) {
    label(tracks.lif, state.bits, "the potential's code, highest bit on top");
    var parts = plot(found.lif, found.lifWithout, width, "lif", found.lif);
    var y = SPIKES + PLOT + GAP;
    range(T).forEach(function (t) {
      var now = neuronModel.bitsOf(found.lif.codes[t], state.bits);
      var without = found.lifWithout ? neuronModel.bitsOf(found.lifWithout.codes[t], state.bits) : now;
      now.forEach(function (value, i) {
        var differs = value !== without[i];
        parts.push(
          bit(
            t,
            y + 10 * i,
            width,
            10,
            (value ? "on-" : "off") + (differs ? (value ? "follow" : "-follow") : value ? "lif" : "")
          )
        );
      });
    });
    tracks.lif.replaceChildren(picture(width, y + 10 * state.bits + 4, described("LIF", found.lif), parts));
  }

  function label(content, keeps, what) {
    var small = content.parentNode.querySelector("small");
    small.replaceChildren(
      "keeps ",
      html("b", {}, [page.plural(keeps, "bit")]),
      keeps ? ": " + what : ": it knows this step alone"
    );
  }

  function described(name, neuron) {
    var fired = range(T).filter(function (t) {
      return neuron.fired[t];
    });
    return (
      name +
      ": " +
      (fired.length ? "fires at steps " + fired.join(", ") : "never fires") +
      ". The step slider below tells every number."
    );
  }

  function picture(width, height, name, parts) {
    var attributes = { width: T * width, height: height, viewBox: "0 0 " + T * width + " " + height };
    Object.assign(attributes, name ? { role: "img", "aria-label": name } : { "aria-hidden": "true" });
    var made = svg("svg", attributes, parts);
    made.addEventListener("pointerdown", function (event) {
      state.step = Math.min(
        T - 1,
        Math.max(0, Math.floor((event.clientX - made.getBoundingClientRect().left) / width))
      );
      render();
    });
    return made;
  }

  function bit(t, y, width, height, kind) {
    return svg("rect", { x: t * width + 1.5, y: y + 0.75, width: width - 3, height: height - 1.5, rx: 2, class: kind });
  }

  /** Spikes on top, potentials as bars; where the followed spike makes a difference, what it would be without. */
  function plot(neuron, without, width, kind, lif) {
    var seen = neuron.potential.concat(without ? without.potential : [], 0, (state.threshold / 16) * 1.12);
    var least = Math.min.apply(null, seen),
      most = Math.max.apply(null, seen);
    function y(value) {
      return SPIKES + 4 + ((PLOT - 8) * (most - value)) / (most - least);
    }
    function level(value, from, to, name) {
      return svg("line", { x1: from * width, x2: to * width, y1: y(value), y2: y(value), class: name });
    }
    var parts = [];
    if (lif && state.bits <= 5) {
      range(lif.highest - lif.lowest + 1).forEach(function (i) {
        var value = (lif.lowest + i) * lif.scale;
        if (value >= least && value <= most) parts.push(level(value, 0, T, "code"));
      });
    }
    parts.push(level(0, 0, T, "axis"));
    neuron.potential.forEach(function (u, t) {
      var top = y(Math.max(u, 0)),
        bottom = y(Math.min(u, 0));
      parts.push(
        svg("rect", {
          x: t * width + 3,
          y: top,
          width: width - 6,
          height: bottom - top,
          class: (neuron.fired[t] ? "on-" : "bar-") + kind,
        })
      );
      if (neuron.fired[t])
        parts.push(
          svg("rect", { x: (t + 0.5) * width - 2.5, y: 1, width: 5, height: SPIKES - 4, rx: 2, class: "on-" + kind })
        );
      if (lif) parts.push(level(lif.codes[t] * lif.scale, t + 0.7, Math.min(T, t + 1.3), "kept"));
      if (without && without.potential[t] !== u) parts.push(level(without.potential[t], t + 0.1, t + 0.9, "without"));
    });
    parts.push(level(state.threshold / 16, 0, T, "threshold"));
    parts.push(svg("text", { x: 3, y: y(state.threshold / 16) - 4 }, ["θ = " + number(state.threshold / 16)]));
    return parts;
  }

  // ---- one step, looked at closely ----

  function lookAtFree(found) {
    var t = state.step,
      free = found.free,
      u = free.potential[t];
    var parts = [];
    free.registers[t].forEach(function (register, i) {
      var trace = number(free.traces[t][i]);
      if (state.decay === 8) trace += ", in binary " + register.join("").replace(/^./, "$&.").replace(/\.$/, "");
      parts.push(
        html("p", {}, ["Register of input " + INPUTS[i] + ": the newest spike first, below each what it weighs"])
      );
      parts.push(
        html(
          "div",
          { class: "bits" },
          register.map(function (value, j) {
            return box(
              value,
              number(round3(free.taps[j])),
              (j === 0 ? " arriving" : "") + (follows(i, t - j) ? " followed" : "")
            );
          })
        )
      );
      parts.push(html("p", { class: "number" }, ["trace = " + trace]));
    });
    var sum = found.given.weights.map(function (weight, i) {
      return number(weight) + " × " + number(free.traces[t][i]);
    });
    parts.push(verdict("u = " + sum.join(" + ") + " = ", u, free.fired[t], ""));
    parts.push(
      html("p", { class: "soft" }, [
        state.order > 1
          ? "Dashed: what arrives now. The others were kept; the last is dropped before the next step. u itself is not kept."
          : "Nothing is kept: the neuron sees this step alone.",
      ])
    );
    byId("free-look").replaceChildren.apply(byId("free-look"), parts);
  }

  function lookAtLif(found) {
    var t = state.step,
      lif = found.lif,
      before = t ? lif.codes[t - 1] : 0,
      code = lif.codes[t];
    var sum =
      "u = " + number(state.decay / 16) + " × " + number(before * lif.scale) + " + " + number(lif.input[t]) + " = ";
    var exact = lif.rest[t] / lif.scale,
      lost = lif.rest[t] - code * lif.scale;
    var clipped = exact > lif.highest || exact < lif.lowest;
    var parts = [
      html("p", {}, ["Kept from before: code " + number(before) + ", that is " + number(before * lif.scale)]),
      verdict(sum, lif.potential[t], lif.fired[t], lif.fired[t] ? "; θ is subtracted: " + number(lif.rest[t]) : ""),
      html("p", { class: "number" }, [
        number(lif.rest[t]) + " / " + number(lif.scale) + " = " + number(exact) + " → code " + number(code),
      ]),
      levels(lif, lif.rest[t], code),
      html(
        "div",
        { class: "bits" },
        neuronModel.bitsOf(code, state.bits).map(function (value, i) {
          var weight = Math.pow(2, state.bits - 1 - i) * (i === 0 && state.bits > 1 ? -1 : 1);
          return box(value, number(weight), "");
        })
      ),
      html("p", { class: "soft" }, [
        lost === 0
          ? "Nothing is lost at this step."
          : (clipped ? "Clipped to the " + (lost > 0 ? "highest" : "lowest") + " code: " : "Rounded: ") +
            number(Math.abs(lost)) +
            (lost > 0 ? " is lost." : " is made up."),
      ]),
    ];
    byId("lif-look").replaceChildren.apply(byId("lif-look"), parts);
  }

  function box(value, weight, name) {
    return html("span", { class: "bit" + (value ? " one" : "") + name }, [
      html("b", {}, [String(value)]),
      html("small", {}, [weight]),
    ]);
  }

  function round3(value) {
    return Math.round(value * 1e3) / 1e3;
  }

  function verdict(sum, u, fired, then) {
    var sign = fired ? " ≥ θ: " : " < θ: ";
    return html("p", { class: "number" }, [
      sum + number(u) + sign,
      html("span", { class: "fires" }, [fired ? "fires" : "silent"]),
      then,
    ]);
  }

  /** The levels that a potential can be kept at, and where it fell among them. */
  function levels(lif, rest, code) {
    var width = 400,
      span = lif.highest - lif.lowest + 1;
    function x(value) {
      return 10 + (width - 20) * Math.min(1, Math.max(0, (value - lif.lowest + 0.5) / span));
    }
    var ticks = range(span).map(function (i) {
      return svg("line", { x1: x(lif.lowest + i), x2: x(lif.lowest + i), y1: 22, y2: 32, class: "axis" });
    });
    var kept = svg("circle", { cx: x(code), cy: 27, r: 6, class: "on-lif" });
    var fell = svg("path", { d: "M" + x(rest / lif.scale) + " 18l-5 -9h10z", class: "ink" });
    return svg(
      "svg",
      {
        viewBox: "0 0 400 38",
        role: "img",
        width: "100%",
        "aria-label": "It fell on " + number(rest / lif.scale) + " levels and is kept as " + number(code),
      },
      [svg("line", { x1: 4, x2: 396, y1: 27, y2: 27, class: "axis" })].concat(ticks, [kept, fell])
    );
  }

  // ---- what is still known of the followed spike ----

  function remembered(found) {
    if (!state.follow)
      return "Click a spike into the input, or point at one, to see how long each neuron remembers it.";
    var first = state.follow.step,
      where = "The purple spike, input " + INPUTS[state.follow.input] + " at step " + first + ": ";
    var same = range(T).find(function (t) {
      return t >= first && found.lif.codes[t] === found.lifWithout.codes[t];
    });
    var free =
      state.order === 1
        ? "the memory-free neuron keeps nothing of it"
        : "the memory-free neuron keeps it for " + page.plural(state.order - 1, "step") + ", to the bit";
    var lif =
      same === undefined
        ? "the LIF's code differs because of it to the end."
        : same === first
          ? "the LIF's code is at once the same as if it had not come."
          : "the LIF's code differs because of it for " +
            page.plural(same - first, "step") +
            ", and from step " +
            same +
            " on is the same as if it had not come.";
    return where + free + "; " + lif;
  }

  function render() {
    var found = computed();
    SLIDERS.forEach(function (slider) {
      var value = get(slider),
        text = number(value / slider.over);
      slider.range.value = value;
      slider.range.setAttribute("aria-valuetext", text);
      slider.output.textContent = text;
      slider.box.hidden = slider.input !== undefined && slider.input >= state.inputs;
    });
    byId("step").value = state.step;
    byId("step-number").textContent = state.step;
    drawTracks(found);
    lookAtFree(found);
    lookAtLif(found);
    var text = remembered(found);
    if (byId("remembered").textContent !== text) byId("remembered").textContent = text;
  }

  buildControls();
  show(SCENES[1]);
  new ResizeObserver(render).observe(byId("scroll"));
})();
