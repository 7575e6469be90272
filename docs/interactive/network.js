/* The network in WebAssembly: bytes in, scores and spikes out. wasm.c is its other side. */
"use strict";

var network = (function () {
  var facts = digitsNetwork,
    STEPS = facts.steps,
    FEATURES = 8,
    CLASSES = 10;
  var wasm = Uint8Array.from(atob(facts.wasm), function (letter) {
    return letter.charCodeAt(0);
  });
  var device = null;

  /** Resolves when the rest can be called. */
  var ready = WebAssembly.instantiate(wasm).then(function (made) {
    device = made.instance.exports;
  });

  /**
   * A whole picture, all rows at once.
   *
   * @param {number[][]} levels 8 rows of 8 levels, 0 to 16.
   * @returns {{answer: number, scores: number[], spikes: number[][][]}} spikes[layer][step] are 0 or 1, a neuron each.
   *     Scores are whole numbers; times `unit` they are the model's. All of them fit a double.
   */
  function run(levels) {
    bytes(device.input(), STEPS * FEATURES).set(levels.flat());
    var answer = device.run();
    return { answer: answer, scores: scores(), spikes: spikes(STEPS) };
  }

  /** The same row by row, as a device with a sensor would: an array with what `run` gives, for each row. */
  function stream(levels) {
    device.reset();
    return levels.map(function (row) {
      bytes(device.input(), FEATURES).set(row);
      var answer = device.step();
      return {
        answer: answer,
        scores: scores(),
        spikes: spikes(1).map(function (layer) {
          return layer[0];
        }),
      };
    });
  }

  function bytes(at, count) {
    return new Uint8Array(device.memory.buffer, at, count);
  }

  function scores() {
    return Array.from(new BigInt64Array(device.memory.buffer, device.scores(), CLASSES), Number);
  }

  function spikes(steps) {
    var at = device.spikes();
    return facts.layers.map(function (layer) {
      return page.range(steps).map(function () {
        var words = new Uint32Array(device.memory.buffer, at, Math.ceil(layer.neurons / 32));
        at += words.byteLength;
        return page.range(layer.neurons).map(function (n) {
          return (words[n >> 5] >>> (n & 31)) & 1;
        });
      });
    });
  }

  return { facts: facts, bytes: wasm.length, ready: ready, run: run, stream: stream };
})();
