/* The page around the two neurons: what is set, and the controls that set it. */
"use strict";

(() => {
  const { byId, html, number, range } = page;
  const { STEPS, INPUTS, silent, scenes } = neuronScenes;

  /* Values are the sliders': sixteenths where `over` says so. `follow` is the spike {input, step} to be followed. */
  const state = {
    decay: 0, threshold: 0, inputs: 1, weights: [0, 0, 0], order: 1, ownOrder: 0, ownWeight: 0, bits: 1,
    spikes: [], step: 0, follow: null,
  };

  const SLIDERS = [
    { key: "decay", place: "shared", name: "Decay d", least: 0, most: 16, over: 16 },
    { key: "threshold", place: "shared", name: "Threshold θ", least: 4, most: 32, over: 16 },
    { key: "inputs", place: "shared", name: "Inputs", least: 1, most: 3, over: 1 },
    { key: "weight0", place: "shared", name: "Strength of A", least: -32, most: 32, over: 16, input: 0 },
    { key: "weight1", place: "shared", name: "Strength of B", least: -32, most: 32, over: 16, input: 1 },
    { key: "weight2", place: "shared", name: "Strength of C", least: -32, most: 32, over: 16, input: 2 },
    { key: "order", place: "free", name: "Order K", least: 1, most: 10, over: 1 },
    { key: "ownOrder", place: "free", name: "Own spikes R", least: 0, most: 10, over: 1 },
    { key: "ownWeight", place: "free", name: "Feedback r₁", least: -32, most: 32, over: 16 },
    { key: "bits", place: "lif", name: "Bits b", least: 1, most: 8, over: 1 },
  ];

  // ---- numbers ----

  /** What neuronModel takes. */
  const given = (spikes) => ({
    decay: state.decay / 16,
    threshold: state.threshold / 16,
    order: state.order,
    ownOrder: state.ownOrder,
    ownWeight: state.ownWeight / 16,
    bits: state.bits,
    weights: state.weights.slice(0, state.inputs).map((weight) => weight / 16),
    spikes: spikes.slice(0, state.inputs),
  });

  /** Both neurons, and what they would be if the followed spike had not come. */
  function compute() {
    const now = given(state.spikes);
    const found = { given: now, free: neuronModel.memoryFree(now), lif: neuronModel.lif(now) };
    if (state.follow) {
      const spikes = state.spikes.map((train) => train.slice());
      spikes[state.follow.input][state.follow.step] = 0;
      found.freeWithout = neuronModel.memoryFree(given(spikes));
      found.lifWithout = neuronModel.lif(given(spikes));
    }
    return found;
  }

  // ---- what can be done ----

  const acts = {
    put(input, step, spike) {
      state.spikes[input][step] = spike;
      state.step = step;
      if (spike) state.follow = { input, step };
      else if (neuronTracks.follows(state, input, step)) state.follow = null;
      render();
    },
    follow(input, step) {
      if (!state.spikes[input][step] || neuronTracks.follows(state, input, step)) return;
      state.follow = { input, step };
      render();
    },
    look(step) {
      play.stop();
      state.step = step;
      render();
    },
  };

  function show(scene) {
    play.stop();
    Object.assign(state, { ownOrder: 0, ownWeight: 0 }, scene.set, { weights: [...scene.set.weights], follow: scene.follow });
    state.spikes = INPUTS.map((_, i) => [...(scene.trains[i] ?? silent())]);
    state.step = state.follow ? Math.min(STEPS - 1, state.follow.step + 6) : 10;
    tell(scene);
    neuronTracks.build(state.inputs, acts);
    render();
  }

  /** Which scene this is; null once its spikes are gone. */
  function tell(scene) {
    for (const other of scenes) other.button.setAttribute("aria-pressed", String(other === scene));
    byId("scene-text").textContent = scene ? scene.text : "";
  }

  /** Other spikes for all inputs; the first of them is followed. */
  function feed(train) {
    state.spikes = INPUTS.map(train);
    const input = range(state.inputs).find((i) => state.spikes[i].includes(1));
    state.follow = input === undefined ? null : { input, step: state.spikes[input].indexOf(1) };
    tell(null);
    render();
  }

  function set(slider, value) {
    if (slider.input === undefined) state[slider.key] = value;
    else state.weights[slider.input] = value;
    if (slider.key === "inputs") {
      if (state.follow && state.follow.input >= value) state.follow = null;
      neuronTracks.build(value, acts);
    }
    render();
  }

  const play = page.player(byId("play"), 450, () => {
    state.step += 1;
    render();
    return state.step < STEPS - 1;
  });

  // ---- the page ----

  function build() {
    for (const slider of SLIDERS) {
      const { key, least, most } = slider;
      slider.range = html("input", { type: "range", id: key, min: least, max: most, step: 1 });
      slider.output = html("output", { for: key });
      const label = html("label", { for: key }, [slider.name, slider.output]);
      slider.box = html("div", { class: "slider" }, [label, slider.range]);
      slider.range.addEventListener("input", () => set(slider, Number(slider.range.value)));
      byId(`${slider.place}-controls`).append(slider.box);
    }
    for (const scene of scenes) {
      scene.button = html("button", { type: "button", "aria-pressed": "false" }, [scene.name]);
      scene.button.addEventListener("click", () => show(scene));
      byId("scenes").append(scene.button);
    }
    byId("step").max = STEPS - 1;
    byId("step").addEventListener("input", () => acts.look(Number(byId("step").value)));
    byId("clear").addEventListener("click", () => feed(silent));
    byId("random").addEventListener("click", () => feed(() => silent().map(() => (Math.random() < 0.3 ? 1 : 0))));
    byId("play").addEventListener("click", () => {
      if (play.isPlaying()) return play.stop();
      if (state.step === STEPS - 1) state.step = -1;
      return play.start();
    });
  }

  function render() {
    const found = compute();
    for (const slider of SLIDERS) {
      const value = slider.input === undefined ? state[slider.key] : state.weights[slider.input];
      slider.range.value = value;
      slider.output.textContent = number(value / slider.over);
      slider.range.setAttribute("aria-valuetext", slider.output.textContent);
      slider.box.hidden = slider.input >= state.inputs;
    }
    byId("step").value = state.step;
    byId("step-number").textContent = state.step;
    neuronTracks.draw(state, found);
    neuronStep.draw(state, found);
  }

  build();
  show(scenes[1]);
  new ResizeObserver(render).observe(byId("scroll"));
})();
