/* The two neurons in numbers, step by step. Twins: mfp_neurons.functional.fire with an Exponential kernel, and
 * mfp_neurons.QuantizedMembraneLIF with the scale that its training starts from.
 *
 * The page sets everything in sixteenths, and order and inputs are few. So potentials have fewer bits than a double has
 * room for, no sum or product rounds, and the twins' numbers in float64 are these, bit for bit. */
"use strict";

var neuronModel = (function () {
  /**
   * A memory-free neuron: all that it has of the past is the last order - 1 spikes of every input.
   *
   * @param {{decay: number, order: number, threshold: number, weights: number[], spikes: number[][]}} given
   *     spikes[input][t] is 0 or 1.
   * @returns {{taps: number[], registers: number[][][], traces: number[][], potential: number[], fired: number[]}}
   *     registers[t][input][j] is the spike j steps before t, traces[t][input] what these are worth.
   */
  function memoryFree(given) {
    var taps = [1];
    while (taps.length < given.order) taps.push(taps[taps.length - 1] * given.decay);
    var registers = given.spikes.map(function () {
      return taps.map(function () {
        return 0;
      });
    });
    var found = { taps: taps, registers: [], traces: [], potential: [], fired: [] };
    for (var t = 0; t < given.spikes[0].length; t++) {
      registers = registers.map(function (register, i) {
        return [given.spikes[i][t]].concat(register.slice(0, -1)); // shift, put the new spike in
      });
      var traces = registers.map(function (register) {
        return dot(register, taps);
      });
      var potential = dot(given.weights, traces);
      found.registers.push(registers);
      found.traces.push(traces);
      found.potential.push(potential);
      found.fired.push(potential >= given.threshold ? 1 : 0);
    }
    return found;
  }

  /**
   * A leaky integrate-and-fire neuron that keeps its potential as a code of a few bits.
   *
   * @param {{decay: number, bits: number, threshold: number, weights: number[], spikes: number[][]}} given
   * @returns {{scale: number, lowest: number, highest: number, input: number[], potential: number[], fired: number[],
   *     rest: number[], codes: number[]}}
   *     potential is what the threshold sees, rest what is left after the reset, codes what is kept of that.
   */
  function lif(given) {
    var lowest = given.bits === 1 ? 0 : -Math.pow(2, given.bits - 1);
    var scale = given.threshold / Math.pow(2, given.bits - 1);
    var found = {
      scale: scale,
      lowest: lowest,
      highest: lowest + Math.pow(2, given.bits) - 1,
      input: [],
      potential: [],
      fired: [],
      rest: [],
      codes: [],
    };
    var code = 0;
    for (var t = 0; t < given.spikes[0].length; t++) {
      var input = dot(
        given.weights,
        given.spikes.map(function (train) {
          return train[t];
        })
      );
      var potential = given.decay * (code * scale) + input;
      var fired = potential >= given.threshold ? 1 : 0;
      var rest = potential - given.threshold * fired;
      code = Math.min(found.highest, Math.max(lowest, roundHalfToEven(rest / scale)));
      found.input.push(input);
      found.potential.push(potential);
      found.fired.push(fired);
      found.rest.push(rest);
      found.codes.push(code);
    }
    return found;
  }

  function dot(a, b) {
    return a.reduce(function (sum, value, i) {
      return sum + value * b[i];
    }, 0);
  }

  /** As torch.round has it, unlike Math.round. */
  function roundHalfToEven(value) {
    var below = Math.floor(value);
    if (value - below === 0.5) return below % 2 === 0 ? below : below + 1;
    return Math.round(value);
  }

  /** The bits of a code, the highest first; two's complement. */
  function bitsOf(code, bits) {
    return Array.from({ length: bits }, function (_, i) {
      return (code >> (bits - 1 - i)) & 1;
    });
  }

  return { memoryFree: memoryFree, lif: lif, bitsOf: bitsOf };
})();
