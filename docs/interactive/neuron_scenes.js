/* Scenes to start from. Numbers are in the sliders' units: sixteenths for decay, threshold and strengths. */
"use strict";

const neuronScenes = (() => {
  const STEPS = 24;
  const at = (...steps) => page.range(STEPS).map((t) => (steps.includes(t) ? 1 : 0));
  const every = (period, first) => page.range(STEPS).map((t) => (t >= first && (t - first) % period === 0 ? 1 : 0));

  const scenes = [
    {
      name: "Small inputs",
      text:
        "Every spike is worth less than half a level of the 2-bit potential: each is rounded away as it comes. " +
        "The register keeps them all and adds them up. Give the LIF a third bit and it charges, but sticks to its " +
        "highest level; with four bits it fires.",
      set: { decay: 15, threshold: 16, inputs: 1, weights: [3, 8, -8], order: 10, bits: 2 },
      trains: [at(1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 18, 19, 20, 21)],
      follow: { input: 0, step: 1 },
    },
    {
      name: "Was there a spike?",
      text:
        "B asks whether A came shortly before. The memory-free neuron says yes at step 8 and no at step 18. The " +
        "2-bit potential clips what A left and misses the yes. With 3 bits it says yes; but take away B's first " +
        "spike, and it says yes at step 18 as well: stuck to its level, it no longer knows when A came.",
      set: { decay: 15, threshold: 16, inputs: 2, weights: [12, 8, -8], order: 8, bits: 2 },
      trains: [at(2), at(8, 18)],
      follow: { input: 0, step: 2 },
    },
    {
      name: "Rhythm",
      text:
        "With d = ½ each register is a binary number that is halved at every step: follow a spike down its diagonal. " +
        "The 3-bit potential is rounded up just often enough to fire at steps 6 and 18 too. With a fourth bit it " +
        "does not.",
      set: { decay: 8, threshold: 16, inputs: 2, weights: [10, 7, -8], order: 8, bits: 3 },
      trains: [every(3, 0), every(4, 1)],
      follow: { input: 0, step: 6 },
    },
    {
      name: "Steady input: the LIF is better",
      text:
        "A spike at every step. The LIF charges, fires, charges again: move the strength of A and its rate follows. " +
        "The memory-free neuron has no reset and fires for as long as its potential is over the threshold.",
      set: { decay: 14, threshold: 16, inputs: 1, weights: [6, 8, -8], order: 8, bits: 5 },
      trains: [every(1, 0)],
      follow: null,
    },
    {
      name: "The same, with feedback",
      text:
        "Its own last spikes, fed back: with r₁ = −θ d and a decay each of them takes a threshold away, as a reset " +
        "does. The neuron charges and fires as the LIF, with no potential kept, for as long as the register reaches " +
        "back. Move r₁ to 0 and the reset is gone.",
      set: { decay: 8, threshold: 16, inputs: 1, weights: [9, 8, -8], order: 10, ownOrder: 9, ownWeight: -8, bits: 8 },
      trains: [every(1, 0)],
      follow: null,
    },
    {
      name: "A latch of one bit",
      text:
        "A switches on, B off. One own spike that is fed back with r₁ = θ keeps the next one coming, so one bit " +
        "remembers A for as long as nothing happens: no order of inputs reaches that far. The LIF fires once, and its " +
        "reset takes away all that it knew of A.",
      set: { decay: 8, threshold: 16, inputs: 2, weights: [16, -16, -8], order: 1, ownOrder: 1, ownWeight: 16, bits: 4 },
      trains: [at(2), at(17)],
      follow: { input: 0, step: 2 },
    },
    {
      name: "Counting: the LIF is better",
      text:
        "No decay, eight spikes wanted, one every third step. Four bits of potential count them without an error. " +
        "The register sees three spikes at a time, and would need an order of 22.",
      set: { decay: 16, threshold: 16, inputs: 1, weights: [2, 8, -8], order: 8, bits: 4 },
      trains: [every(3, 0)],
      follow: { input: 0, step: 0 },
    },
  ];

  return { STEPS, INPUTS: ["A", "B", "C"], silent: () => at(), scenes };
})();
