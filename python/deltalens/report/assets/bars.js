/* A latent's effect on every pair, largest first, with the pair's texts behind each bar. */
const FIRST_BARS = 8;

function pairBars(one) {
  const order = one.per_pair.map((value, pair) => ({ value, pair })).filter(({ value }) => known(value));
  order.sort((a, b) => Math.abs(b.value) - Math.abs(a.value) || a.pair - b.pair);
  if (!order.length) return null;
  const largest = Math.abs(order[0].value) || 1;
  const positive = order.filter(({ value }) => value > 0).length;
  const first = order.slice(0, FIRST_BARS), rest = order.slice(FIRST_BARS);
  return h("section", { class: "by-pair" }, h("h3", {}, "Attribution per pair"),
    h("p", { class: "note" }, `${positive} of ${order.length} pairs above 0. Open one for its texts.${shadingNote()}`),
    barList(first, largest),
    rest.length > 0 && folded({}, `${rest.length} more pairs`, () => barList(rest, largest)));
}

function barList(order, largest) {
  return order.map(({ value, pair }) => folded({ class: "effect" },
    [h("span", {}, data.pairs[pair].id), lane(value, largest), h("span", { class: "value" }, number(value))],
    () => [promptBlock(data.pairs[pair].prompt), bothCompletions(pair)]));
}

function lane(value, largest) {
  const width = (50 * Math.abs(value)) / largest;
  const css = { width: `${width}%`, left: `${value > 0 ? 50 : 50 - width}%`, background: `rgb(var(${value > 0 ? "--plus" : "--minus"}) / .8)` };
  return h("span", { class: "lane" }, h("i", { css }));
}

function promptBlock(messages) {
  return h("div", { class: "prompt" }, messages.map(([role, text]) =>
    h("div", {}, role && h("span", { class: "label" }, role), h("div", { class: "text" }, text))));
}

function answer(title, text, grade = null) {
  return h("div", { class: "answer" },
    h("div", { class: "label" }, title, grade && h("span", { class: `grade ${grade.outcome}`, title: grade.why || null }, grade.label)),
    h("div", { class: "text" }, text));
}
