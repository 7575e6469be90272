/* One step, looked at closely; and what is still known of the followed spike. */
"use strict";

const neuronStep = (() => {
  const { byId, svg, html, number, range, plural, say } = page;
  const { INPUTS } = neuronScenes;

  function draw(state, found) {
    byId("free-look").replaceChildren(...free(state, found));
    byId("lif-look").replaceChildren(...lif(state, found));
    say(byId("remembered"), remembered(state, found));
  }

  function free(state, { free, given }) {
    const t = state.step;
    const registers = free.registers[t].flatMap((register, i) => {
      const binary = register.join("").replace(/^(.)(.+)/, "$1.$2");
      const bits = register.map((value, j) => {
        const marks = `${j === 0 ? " arriving" : ""}${neuronTracks.follows(state, i, t - j) ? " followed" : ""}`;
        return box(value, number(Math.round(free.taps[j] * 1e3) / 1e3), marks);
      });
      return [
        html("p", {}, [`Register of input ${INPUTS[i]}: the newest spike first, below each what it weighs`]),
        html("div", { class: "bits" }, bits),
        words(`trace = ${number(free.traces[t][i])}${state.decay === 8 ? `, in binary ${binary}` : ""}`),
      ];
    });
    if (state.ownOrder) {
      const bits = free.own[t].map((value, j) => box(value, number(Math.round(free.ownTaps[j] * 1e3) / 1e3), ""));
      registers.push(html("p", {}, ["Its own last spikes, the newest first, below each what it adds"]));
      registers.push(html("div", { class: "bits" }, bits));
    }
    const terms = given.weights.map((weight, i) => `${number(weight)} × ${number(free.traces[t][i])}`);
    const kept =
      state.order > 1
        ? "Dashed: what arrives now. The others were kept; the last is dropped before the next step. u is not kept."
        : "Nothing is kept: the neuron sees this step alone.";
    if (state.ownOrder) terms.push(number(free.ownTraces[t]));
    const sum = `u = ${terms.join(" + ")} = ${number(free.potential[t])}`;
    return [...registers, verdict(sum, free.fired[t], ""), html("p", { class: "soft" }, [kept])];
  }

  function lif(state, { lif, given }) {
    const t = state.step, before = t ? lif.codes[t - 1] : 0, code = lif.codes[t], rest = lif.rest[t];
    const sum = `u = ${number(given.decay)} × ${number(before * lif.scale)} + ${number(lif.input[t])}`;
    const bits = neuronModel.bitsOf(code, state.bits).map((value, i) => {
      const sign = i === 0 && state.bits > 1 ? -1 : 1; // two's complement
      return box(value, number(sign * 2 ** (state.bits - 1 - i)), "");
    });
    return [
      html("p", {}, [`Kept from before: code ${number(before)}, that is ${number(before * lif.scale)}`]),
      verdict(
        `${sum} = ${number(lif.potential[t])}`,
        lif.fired[t],
        lif.fired[t] ? `; θ is subtracted: ${number(rest)}` : "",
      ),
      words(`${number(rest)} / ${number(lif.scale)} = ${number(rest / lif.scale)} → code ${number(code)}`),
      levels(lif, rest / lif.scale, code),
      html("div", { class: "bits" }, bits),
      html("p", { class: "soft" }, [loss(lif, rest, code)]),
    ];
  }

  function loss({ scale, lowest, highest }, rest, code) {
    const lost = rest - code * scale;
    if (lost === 0) return "Nothing is lost at this step.";
    const end = lost > 0 ? "highest" : "lowest";
    const clipped = rest / scale > highest || rest / scale < lowest;
    const how = clipped ? `Clipped to the ${end} code` : "Rounded";
    return `${how}: ${number(Math.abs(lost))} is ${lost > 0 ? "lost" : "made up"}.`;
  }

  const words = (text) => html("p", { class: "number" }, [text]);

  const verdict = (sum, fired, then) =>
    html("p", { class: "number" }, [
      sum + (fired ? " ≥ θ: " : " < θ: "),
      html("b", {}, [fired ? "fires" : "silent"]),
      then,
    ]);

  const box = (value, weight, marks) =>
    html("span", { class: `bit${value ? " one" : ""}${marks}` }, [html("b", {}, [value]), html("small", {}, [weight])]);

  /** The levels that the potential can be kept at, and where it fell among them. */
  function levels({ lowest, highest }, fell, code) {
    const span = highest - lowest + 1;
    const x = (value) => 10 + 380 * Math.min(1, Math.max(0, (value - lowest + 0.5) / span));
    const ticks = range(span).map((i) =>
      svg("line", { x1: x(lowest + i), x2: x(lowest + i), y1: 22, y2: 32, class: "axis" }),
    );
    const label = `It fell on ${number(fell)} levels and is kept as ${number(code)}`;
    return svg("svg", { viewBox: "0 0 400 38", role: "img", width: "100%", "aria-label": label }, [
      svg("line", { x1: 4, x2: 396, y1: 27, y2: 27, class: "axis" }),
      ...ticks,
      svg("circle", { cx: x(code), cy: 27, r: 6, class: "on-lif" }),
      svg("path", { d: `M${x(fell)} 18l-5 -9h10z`, class: "ink" }),
    ]);
  }

  function remembered({ follow, order, ownOrder }, { free, freeWithout, lif, lifWithout }) {
    if (!follow) return "Click a spike into the input, or point at one, to see how long each neuron remembers it.";
    const same = lif.codes.findIndex((code, t) => t >= follow.step && code === lifWithout.codes[t]);
    const register = order === 1 ? "" : `the memory-free neuron keeps it for ${plural(order - 1, "step")}, to the bit`;
    const own = ownOrder ? ownSpikes(follow.step, free, freeWithout) : "";
    const kept = [register, own].filter(Boolean).join("; ") || "the memory-free neuron keeps nothing of it";
    const last =
      same < 0
        ? "the LIF's code differs because of it to the end"
        : same === follow.step
          ? "the LIF's code is at once the same as if it had not come"
          : `the LIF's code differs because of it for ${plural(same - follow.step, "step")}, and from step ` +
            `${same} on is the same as if it had not come`;
    return `The purple spike, input ${INPUTS[follow.input]} at step ${follow.step}: ${kept}; ${last}.`;
  }

  /** Whether what a neuron keeps of its own spikes differs because of a spike at this step, and until when. */
  function ownSpikes(step, free, without) {
    const differs = free.own.map((own, t) => own.some((spike, j) => spike !== without.own[t][j]));
    const last = differs.lastIndexOf(true);
    if (last < 0) return "the memory-free neuron's own spikes do not tell of it";
    if (last === differs.length - 1) return "the memory-free neuron's own spikes tell of it to the end";
    return `the memory-free neuron's own spikes tell of it for ${plural(last - step, "step")}`;
  }

  return { draw };
})();
