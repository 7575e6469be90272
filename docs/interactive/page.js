/* What both pages draw and write with. */
"use strict";

var page = (function () {
  function byId(id) {
    return document.getElementById(id);
  }

  /** An SVG element; children may be strings. */
  function svg(name, attributes, children) {
    return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  }

  function html(name, attributes, children) {
    return filled(document.createElement(name), attributes, children);
  }

  function filled(element, attributes, children) {
    Object.keys(attributes || {}).forEach(function (key) {
      element.setAttribute(key, attributes[key]);
    });
    (children || []).forEach(function (child) {
      element.append(child);
    });
    return element;
  }

  /** At most four decimals, with a real minus. */
  function number(value) {
    return String(Math.round(value * 1e4) / 1e4).replace("-", "\u2212");
  }

  function range(length) {
    return Array.from({ length: length }, function (_, i) {
      return i;
    });
  }

  function plural(count, noun) {
    return count + " " + noun + (count === 1 ? "" : "s");
  }

  return { byId: byId, svg: svg, html: html, number: number, range: range, plural: plural };
})();
