function setUpBeside() {
  if (!data.beside.length) return;
  $("#beside").append(h("h2", {}, "Study beside study"), ...data.beside.map(besidePart));
}

function besidePart(other) {
  const rows = other.shared.map(({ latent, rank, other_rank }) => h("tr", {},
    h("td", { class: "number" }, byLatent.has(latent) ? h("a", { href: `#latent-${latent}` }, latent) : latent),
    h("td", { class: "number" }, rank), h("td", { class: "number" }, other_rank)));
  return h("div", {}, h("h3", {}, other.name), other.sentences.map((text) => h("p", {}, text)),
    rows.length > 0 && h("details", { open: rows.length <= 20 }, h("summary", {}, `${rows.length} shared latents`),
      scroller("Shared latents", h("table", {}, h("thead", {}, h("tr", {},
        ["latent", "rank here", "rank there"].map((name) => h("th", { class: "number", scope: "col" }, name)))), h("tbody", {}, rows)))));
}

function setUpSettings() {
  $("#settings").append(h("h2", {}, "Settings and provenance"), ...data.settings.map(({ title, rows }) =>
    h("details", {}, h("summary", {}, title), h("table", { class: "rows" }, h("tbody", {},
      rows.map(([name, value]) => h("tr", {}, h("td", {}, name), h("td", {}, value))))))));
}
