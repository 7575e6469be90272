/* The two neurons in numbers, step by step. Twins: mfp_neurons.functional.fire with an Exponential kernel and taps for
 * the neuron's own spikes, and mfp_neurons.QuantizedMembraneLIF with the scale that its training starts from.
 *
 * The page sets everything in sixteenths, and order and inputs are few. So potentials have fewer bits than a double has
 * room for, no sum or product rounds, and the twins' numbers in float64 are these, bit for bit. */
"use strict";

const neuronModel = (() => {
  /**
   * A memory-free neuron: all that it has of the past is the last order - 1 spikes of every input, and its own last
   * ownOrder spikes.
   *
   * @param {{decay: number, order: number, ownOrder: number, ownWeight: number, threshold: number, weights: number[],
   *     spikes: number[][]}} given
   *     spikes[input][t] is 0 or 1; ownWeight is what the neuron's last spike adds, and it fades with the decay.
   * @returns {{taps: number[], ownTaps: number[], registers: number[][][], own: number[][], traces: number[][],
   *     ownTraces: number[], potential: number[], fired: number[]}}
   *     registers[t][input][j] is the spike j steps before t, traces[t][input] what these are worth; own[t][j] is the
   *     neuron's spike j + 1 steps before t, ownTraces[t] what these add.
   */
  function memoryFree({ decay, order, ownOrder, ownWeight, threshold, weights, spikes }) {
    const taps = fading(1, decay, order), ownTaps = fading(ownWeight, decay, ownOrder);
    const found = { taps, ownTaps, registers: [], own: [], traces: [], ownTraces: [], potential: [], fired: [] };
    let registers = spikes.map(() => taps.map(() => 0)), own = ownTaps.map(() => 0);
    for (const t of spikes[0].keys()) {
      registers = registers.map((register, i) => [spikes[i][t], ...register.slice(0, -1)]); // shift, put the new one in
      const traces = registers.map((register) => dot(register, taps));
      const ownTrace = dot(own, ownTaps);
      const potential = dot(weights, traces) + ownTrace;
      const fired = potential >= threshold ? 1 : 0;
      found.registers.push(registers);
      found.own.push(own);
      found.traces.push(traces);
      found.ownTraces.push(ownTrace);
      found.potential.push(potential);
      found.fired.push(fired);
      own = [fired, ...own].slice(0, ownOrder);
    }
    return found;
  }

  /** So many taps, each the one before it times the decay. */
  const fading = (first, decay, count) => Array.from({ length: count }, (_, j) => first * decay ** j);

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
