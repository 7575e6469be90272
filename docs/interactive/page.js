/* What both pages draw, write and play with. */
"use strict";

const page = (() => {
  const byId = (id) => document.getElementById(id);

  /** An SVG element; children may be text. */
  const svg = (name, attributes, children) =>
    filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const html = (name, attributes, children) => filled(document.createElement(name), attributes, children);

  function filled(element, attributes = {}, children = []) {
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  /** At most four decimals, with a real minus. */
  const number = (value) => String(Math.round(value * 1e4) / 1e4).replace("-", "\u2212");

  const range = (length) => Array.from({ length }, (_, i) => i);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  /** Changes a text only if it is another, so that a screen reader does not say it again. */
  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  /** Makes a button play and pause: `tick` is called every so often until it returns false. */
  function player(button, milliseconds, tick) {
    let timer = null;
    function stop() {
      clearInterval(timer);
      timer = null;
      button.textContent = "Play";
    }
    function start() {
      stop();
      button.textContent = "Pause";
      timer = setInterval(() => tick() || stop(), milliseconds);
    }
    return { start, stop, isPlaying: () => timer !== null };
  }

  return { byId, svg, html, number, range, sum, plural, say, player };
})();
