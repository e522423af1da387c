/* Activations are shaded from nothing to the latent's largest; effects by sign. */
function activationStrip(window_, largest) {
  return h("div", { class: "strip" }, window_.tokens.map((text, at) => {
    const value = window_.activations[at];
    return shaded(text, value, value > 0 ? "--hot" : null, value / largest, at === window_.peak ? "peak" : "");
  }));
}

function effectStrip(tokens, values, start, largest) {
  return h("div", { class: "strip" }, values.map((value, at) =>
    shaded(tokens[start + at], value, value > 0 ? "--plus" : "--minus", Math.abs(value) / largest, value < -0.02 * largest ? "lowers" : "")));
}

function shaded(text, value, colour, share, mark) {
  const alpha = colour && share > 0.02 ? (0.08 + 0.72 * Math.min(1, share)).toFixed(2) : 0;
  const css = alpha ? { background: `rgb(var(${colour}) / ${alpha})` } : {};
  return h("span", { class: mark, title: number(value), css }, text);
}

function effectLegend(largest) {
  const gradient = "linear-gradient(90deg, rgb(var(--minus) / .8), rgb(var(--minus) / .05), rgb(var(--plus) / .05), rgb(var(--plus) / .8))";
  return h("p", { class: "legend" }, number(-largest), h("i", { css: { background: gradient } }), `+${number(largest)}`,
    h("span", {}, "blue, underlined: lowers, orange: raises the behaviour’s log-probability"));
}
