/* A latent's curve over strengths in one arm: the rate with its interval, incoherence, its budget. */
const CHART = { width: 380, height: 210, left: 44, right: 12, top: 12, bottom: 34 };

function curveChart(arm, shared, label) {
  const points_ = [{ strength: 0, ...shared.unsteered }, ...arm.points];
  const widest = Math.max(...points_.map((point) => Math.abs(point.strength)));
  const { width, height, left, right, top, bottom } = CHART;
  const x = (strength) => left + (Math.abs(strength) / widest) * (width - left - right);
  const y = (share) => height - bottom - share * (height - top - bottom);
  const chosen = known(arm.chosen) ? points_[arm.chosen + 1] : null;
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    [0, 0.5, 1].map((share) => gridLine(share, x(0), x(widest), y(share))),
    points_.map((point) => svg("text", { x: x(point.strength), y: height - bottom + 15, "text-anchor": "middle" }, number(Math.abs(point.strength)))),
    svg("text", { x: (x(0) + x(widest)) / 2, y: height - 4, "text-anchor": "middle" }, shared.unit),
    svg("line", { x1: x(0), x2: x(widest), y1: y(shared.budget), y2: y(shared.budget), stroke: "currentColor", "stroke-dasharray": "5 4", opacity: 0.6 },
      svg("title", {}, `incoherence budget ${percent(shared.budget, 1)}`)),
    line(points_, (point) => point.incoherence.rate, x, y, { stroke: "currentColor", opacity: 0.5, "stroke-dasharray": "2 3" }),
    points_.map((point) => known(point.rate) && svg("line", { x1: x(point.strength), x2: x(point.strength), y1: y(point.low), y2: y(point.high), stroke: "var(--attribution)", "stroke-width": 2, opacity: 0.35 })),
    line(points_, (point) => point.rate, x, y, { stroke: "var(--attribution)", "stroke-width": 2 }),
    points_.map((point) => dot(point, x, y, point === chosen)));
}

function gridLine(share, from, to, y) {
  return svg("g", {}, svg("line", { x1: from, x2: to, y1: y, y2: y, stroke: "var(--line)" }),
    svg("text", { x: from - 6, y: y + 4, "text-anchor": "end" }, percent(share)));
}

function line(points_, share, x, y, look) {
  const there = points_.filter((point) => known(share(point)));
  return svg("polyline", { points: there.map((point) => `${x(point.strength)},${y(share(point))}`).join(" "), fill: "none", ...look });
}

function dot(point, x, y, chosen) {
  if (!known(point.rate)) return null;
  const said = `strength ${number(point.strength)}: ${interval(point)} of ${point.n}; incoherent ${percent(point.incoherence.rate)}`;
  return svg("g", {},
    svg("circle", { cx: x(point.strength), cy: y(point.rate), r: 3.5, fill: "var(--attribution)" }, svg("title", {}, said)),
    chosen && svg("circle", { cx: x(point.strength), cy: y(point.rate), r: 7, fill: "none", stroke: "var(--attribution)", "stroke-width": 1.5 }));
}
