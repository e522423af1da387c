/* The card of the latent in the address: #latent-17. */
const byLatent = new Map(data.latents.map((one) => [one.latent, one]));

function latentInAddress() {
  const found = /^#latent-(\d+)$/.exec(location.hash);
  return found ? byLatent.get(Number(found[1])) : undefined;
}

function showAddress() {
  const card = $("#card"), one = latentInAddress();
  if (!one) {
    if (card.open) card.close();
    return;
  }
  card.replaceChildren(cardHead(one), h("div", { class: "card-body" }, cardParts(one)));
  if (!card.open) card.showModal();
  card.scrollTop = 0;
}

function cardHead(one) {
  const at = data.latents.indexOf(one);
  const step = (title, to) => h("button", { type: "button", disabled: !data.latents[to], "aria-label": `${title} latent`, on: { click: () => replaceAddress(`#latent-${data.latents[to].latent}`) } }, title === "Previous" ? "←" : "→");
  return h("div", { class: "card-head" }, h("h2", { id: "card-title" }, `Latent ${one.latent}`),
    step("Previous", at - 1), step("Next", at + 1),
    h("button", { type: "button", autofocus: true, on: { click: () => $("#card").close() } }, "Close"));
}

function replaceAddress(address) {
  history.replaceState(null, "", address);
  showAddress();
}

function setUpDialog() {
  const card = $("#card");
  card.addEventListener("close", () => {
    if (location.hash.startsWith("#latent-")) history.replaceState(null, "", location.pathname + location.search);
  });
  card.addEventListener("click", (event) => {
    if (event.target === card) card.close();
  });
  addEventListener("hashchange", showAddress);
  showAddress();
}
