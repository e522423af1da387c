const FIRST_ROWS = 100; // the others follow when they are there
const ranked = data.latents.filter((one) => one.rank !== null);
let shownLatents = () => ranked; // in the table's order
const tokenList = (tokens, count) => tokens.slice(0, count).map(([text]) => h("span", { class: "token" }, text));

/* Columns: value sorts (null last), cell shows, size is the least width in rem. A column that no latent has a value for is left out. */
function tableColumns() {
  const scores = sharedScale(ranked.map((one) => one.score));
  const factors = ["push", "presence"].map((name) => [name, sharedScale(ranked.map((one) => one[name]))]);
  return [
    { title: "rank", size: 4.5, value: (one) => one.rank },
    { title: "latent", size: 6, value: (one) => one.latent, cell: (one) => [h("a", { href: `#latent-${one.latent}` }, one.latent), pageAt(one)] },
    {
      title: `score ± s.e.${scores.unit}`, size: 9, value: (one) => one.score,
      cell: (one) => [scores.show(one.score), known(one.stderr) && h("span", { class: "error" }, ` ± ${scores.show(one.stderr)}`)],
    },
    { title: "p", size: 5, value: (one) => one.p_value, cell: (one) => pValue(one.p_value) },
    ...factors.map(([name, scale]) => ({
      title: name + scale.unit, size: 7, value: (one) => one[name], cell: (one) => [scale.show(one[name]), name === "push" && unsureMark(one)],
    })),
    { title: "AUC held out", size: 9, value: (one) => one.detection?.[0]?.auc, cell: (one) => (one.detection?.length ? aucText(one.detection[0]) : NONE) },
    { title: "promotes", size: 15, words: "words wide", value: (one) => one.promotes.map(([text]) => text).join(" ") || null, cell: (one) => tokenList(one.promotes, 4) },
    { title: "name", size: 12, words: "words wide", value: (one) => one.names?.[0]?.name },
    ...["away", "toward"].map((arm) => ({
      title: `${arm}, pts`, size: 6, value: (one) => one.steering?.[arm]?.change, cell: (one) => points(one.steering?.[arm]?.change),
    })),
    { title: "beyond random", size: 6.5, words: "words", value: beyondRandom, cell: (one) => beyondCell(beyondRandom(one)) },
  ].filter((column) => ranked.some((one) => known(column.value(one))));
}

const pageAt = (one) => one.neuronpedia && [" ", linkOut(one.neuronpedia, `Latent ${one.latent} at Neuronpedia`)];

const unsureMark = (one) =>
  one.sign_unsure && h("span", { class: "error", title: "push is within three standard errors of zero: its sign is unsure" }, " ?");

function beyondRandom(one) {
  const arms = Object.entries(one.steering ?? {}).filter(([, arm]) => known(arm.beyond));
  if (!arms.length) return null;
  const beyond = arms.filter(([, arm]) => arm.beyond).map(([name]) => name);
  return beyond.length === 2 ? "both" : beyond[0] ?? "no";
}

const beyondCell = (said) => (known(said) ? h("span", { class: said === "no" ? "" : "yes" }, said) : NONE);

function compare(a, b) {
  if (typeof a === "number") return a - b;
  return a < b ? -1 : a > b ? 1 : 0;
}

/* Equal values keep the order of the ranking. */
function sorted(rows, column, descending) {
  const there = rows.filter((one) => known(column.value(one)));
  const missing = rows.filter((one) => !known(column.value(one)));
  there.sort((a, b) => compare(column.value(a), column.value(b)) * (descending ? -1 : 1) || a.rank - b.rank);
  return [...there, ...missing];
}

const searchText = (one) =>
  [one.latent, ...one.promotes.map(([text]) => text), ...one.suppresses.map(([text]) => text), ...(one.names ?? []).map((found) => found.name)]
    .join("\n").toLowerCase();

function setUpTable() {
  const columns = tableColumns(), texts = new Map(ranked.map((one) => [one, searchText(one)]));
  const rows = new Map(), rowOf = (one) => rows.get(one) ?? rows.set(one, tableRow(one, columns)).get(one);
  const state = { column: columns[0], descending: false, query: "" };
  let later;
  const heads = columns.map((column) => sortHead(column, () => {
    state.descending = state.column === column ? !state.descending : false;
    state.column = column;
    draw();
  }));
  setUpColumns(columns);
  $("#ranking thead").append(h("tr", { role: "row" }, heads));
  $("#ranking input").addEventListener("input", (event) => {
    state.query = event.target.value.trim().toLowerCase();
    draw();
  });
  function draw() {
    columns.forEach((column, at) => heads[at].setAttribute("aria-sort", column !== state.column ? "none" : state.descending ? "descending" : "ascending"));
    const shown = sorted(ranked, state.column, state.descending).filter((one) => texts.get(one).includes(state.query));
    shownLatents = () => shown;
    const body = $("#ranking tbody");
    clearTimeout(later);
    body.replaceChildren(...shown.slice(0, FIRST_ROWS).map(rowOf));
    if (shown.length > FIRST_ROWS) later = setTimeout(() => body.append(...shown.slice(FIRST_ROWS).map(rowOf)), 50);
    const cut = data.left_out.length ? `; ${data.left_out.join("; ")}` : "";
    $("#count").textContent = `${shown.length} of ${ranked.length} latents${cut}. Open one for its evidence.`;
  }
  draw();
}

function setUpColumns(columns) {
  const table = $("#ranking table");
  $("tbody", table).classList.toggle("many", ranked.length > FIRST_ROWS);
  table.style.setProperty("--columns", columns.map(({ size }) => `minmax(${size}rem, ${size}fr)`).join(" "));
  table.style.setProperty("--shares", columns.map(({ size }) => `minmax(0, ${size}fr)`).join(" "));
  table.style.setProperty("--least", `${columns.reduce((sum, { size }) => sum + size, 0)}rem`);
}

function sortHead(column, act) {
  return h("th", { scope: "col", role: "columnheader", class: column.words ? "" : "number" }, h("button", { type: "button", on: { click: act } }, column.title));
}

function tableRow(one, columns) {
  const cells = columns.map((column) =>
    h("td", { role: "cell", class: column.words ?? "number" }, column.cell ? column.cell(one) : column.value(one) ?? NONE));
  const open = (event) => {
    if (!event.target.closest("a") && !String(getSelection())) location.hash = `latent-${one.latent}`;
  };
  return h("tr", { role: "row", "data-latent": one.latent, on: { click: open } }, cells);
}
