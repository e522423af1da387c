"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => within.querySelector(selector);

/* Every text goes through text nodes: nothing in the data is ever read as markup. */
function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "css") Object.assign(element.style, value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map(asNode));
  return element;
}

/* What may be wider than its place is scrolled by keyboard, too. */
const scroller = (label, child) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, child);

/* To another site, in a window of its own, which is not told from where. */
function linkOut(address, label) {
  return h("a", { class: "out", href: address, target: "_blank", rel: "noopener noreferrer", "aria-label": label, title: label }, "↗");
}

/* What is behind a summary is made when it is opened. */
function folded(attributes, summary, fill, { open = false } = {}) {
  const element = h("details", { ...attributes, open }, h("summary", {}, summary));
  const fillOnce = () => filled(element, {}, [fill()]);
  if (open) fillOnce();
  else element.addEventListener("toggle", fillOnce, { once: true });
  return element;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}
