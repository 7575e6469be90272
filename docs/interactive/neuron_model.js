/* The two neurons in numbers, step by step. Twins: mfp_neurons.functional.fire with an Exponential kernel, and
 * mfp_neurons.QuantizedMembraneLIF with the scale that its training starts from.
 *
 * The page sets everything in sixteenths, and order and inputs are few. So potentials have fewer bits than a double has
 * room for, no sum or product rounds, and the twins' numbers in float64 are these, bit for bit. */
"use strict";

const neuronModel = (() => {
  /**
   * A memory-free neuron: all that it has of the past is the last order - 1 spikes of every input.
   *
   * @param {{decay: number, order: number, threshold: number, weights: number[], spikes: number[][]}} given
   *     spikes[input][t] is 0 or 1.
   * @returns {{taps: number[], registers: number[][][], traces: number[][], potential: number[], fired: number[]}}
   *     registers[t][input][j] is the spike j steps before t, traces[t][input] what these are worth.
   */
  function memoryFree({ decay, order, threshold, weights, spikes }) {
    const taps = [1];
    while (taps.length < order) taps.push(taps.at(-1) * decay);
    const found = { taps, registers: [], traces: [], potential: [], fired: [] };
    let registers = spikes.map(() => taps.map(() => 0));
    for (const t of spikes[0].keys()) {
      registers = registers.map((register, i) => [spikes[i][t], ...register.slice(0, -1)]); // shift, put the new one in
      const traces = registers.map((register) => dot(register, taps));
      const potential = dot(weights, traces);
      found.registers.push(registers);
      found.traces.push(traces);
      found.potential.push(potential);
      found.fired.push(potential >= threshold ? 1 : 0);
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
  function lif({ decay, bits, threshold, weights, spikes }) {
    const lowest = bits === 1 ? 0 : -(2 ** (bits - 1));
    const highest = lowest + 2 ** bits - 1;
    const scale = threshold / 2 ** (bits - 1);
    const found = { scale, lowest, highest, input: [], potential: [], fired: [], rest: [], codes: [] };
    let code = 0;
    for (const t of spikes[0].keys()) {
      const input = dot(weights, spikes.map((train) => train[t]));
      const potential = decay * (code * scale) + input;
      const fired = potential >= threshold ? 1 : 0;
      const rest = potential - threshold * fired;
      code = Math.min(highest, Math.max(lowest, roundHalfToEven(rest / scale)));
      found.input.push(input);
      found.potential.push(potential);
      found.fired.push(fired);
      found.rest.push(rest);
      found.codes.push(code);
    }
    return found;
  }

  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

  /** As torch.round has it, unlike Math.round. */
  function roundHalfToEven(value) {
    const below = Math.floor(value);
    if (value - below === 0.5) return below % 2 === 0 ? below : below + 1;
    return Math.round(value);
  }

  /** The bits of a code, the highest first; two's complement. */
  const bitsOf = (code, bits) => Array.from({ length: bits }, (_, i) => (code >> (bits - 1 - i)) & 1);

  return { memoryFree, lif, bitsOf };
})();
