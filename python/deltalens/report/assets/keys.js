/* Single keys; the help lists them and switches them off. In fields they are letters. */
const KEYS = [
  ["j", "next latent, in the table or from card to card"],
  ["k", "previous latent"],
  ["Enter", "open the latent that has the focus"],
  ["Escape", "close a card"],
  ["/", "search"],
  ["?", "these keys"],
];
const ACTS = { j: () => step(1), k: () => step(-1), "/": focusSearch, "?": showHelp };
let keysAct = true;

function setUpKeys() {
  const help = $("#help");
  const box = h("input", { type: "checkbox", checked: true, on: { change: () => { keysAct = box.checked; } } });
  help.append(h("h2", { id: "help-title" }, "Keys"),
    h("dl", { class: "keys" }, KEYS.map(([key, said]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, said)))),
    h("p", {}, "In a figure, arrow keys step from point to point. A column’s title sorts by it."),
    h("p", {}, h("label", {}, box, " Single keys act")),
    h("button", { type: "button", on: { click: () => help.close() } }, "Close"));
  $("#keys").addEventListener("click", showHelp);
  addEventListener("keydown", pressed);
}

function pressed(event) {
  const act = ACTS[event.key];
  if (!act || !keysAct || event.ctrlKey || event.metaKey || event.altKey || $("#help").open) return;
  if (event.target.closest("input, textarea, select")) return;
  event.preventDefault();
  act();
}

function showHelp() {
  $("#help").showModal();
}

function focusSearch() {
  $("#card").close();
  $("#ranking input").focus();
}

function step(by) {
  if ($("#card").open) stepCard(by);
  else stepRow(by);
}

function stepRow(by) {
  const rows = [...$("#ranking tbody").children];
  const at = rows.indexOf(document.activeElement?.closest("#ranking tbody tr"));
  const to = at < 0 ? (by > 0 ? 0 : -1) : at + by;
  rows[to]?.querySelector("a").focus();
}
