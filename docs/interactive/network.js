/* The network in WebAssembly: bytes in, scores and spikes out. wasm.c is its other side. */
"use strict";

const network = (() => {
  const { range } = page;
  const facts = digitsNetwork;
  const FEATURES = 8, CLASSES = 10;
  const wasm = Uint8Array.from(atob(facts.wasm), (letter) => letter.charCodeAt(0));
  let device = null;

  /** Resolves when the rest can be called. */
  const ready = WebAssembly.instantiate(wasm).then(({ instance }) => (device = instance.exports));

  /**
   * A whole picture, all rows at once.
   *
   * @param {number[][]} levels 8 rows of 8 levels, 0 to 16.
   * @returns {{answer: number, scores: number[], spikes: number[][][]}} spikes[layer][step] are 0 or 1, a neuron each.
   *     Scores are whole numbers, which a double holds; times `facts.unit` they are the model's.
   */
  function run(levels) {
    input(levels.flat());
    const answer = device.run();
    return { answer, scores: scores(), spikes: spikes(facts.steps) };
  }

  /** The same row by row, as from a sensor: of every row what `run` gives, its spikes as spikes[layer]. */
  function stream(levels) {
    device.reset();
    return levels.map((row) => {
      input(row);
      const answer = device.step();
      return { answer, scores: scores(), spikes: spikes(1).map(([now]) => now) };
    });
  }

  function input(levels) {
    new Uint8Array(device.memory.buffer, device.input(), facts.steps * FEATURES).set(levels);
  }

  const scores = () => Array.from(new BigInt64Array(device.memory.buffer, device.scores(), CLASSES), Number);

  function spikes(steps) {
    let at = device.spikes();
    return facts.layers.map(({ neurons }) =>
      range(steps).map(() => {
        const words = new Uint32Array(device.memory.buffer, at, Math.ceil(neurons / 32));
        at += words.byteLength;
        return range(neurons).map((n) => (words[n >> 5] >>> (n & 31)) & 1);
      }),
    );
  }

  return { facts, bytes: wasm.length, ready, run, stream };
})();
