/* The card of the latent in the address: #latent-17. */
const byLatent = new Map(data.latents.map((one) => [one.latent, one]));
let asked; // of several in a row the last is shown

const numberInAddress = () => /^#latent-(\d+)$/.exec(location.hash)?.[1];
const latentInAddress = () => byLatent.get(Number(numberInAddress() ?? NaN));

async function showAddress() {
  const card = $("#card"), one = latentInAddress();
  const unread = one && !window.DecompressionStream && "Cards need a browser of 2023 or later.";
  const absent = numberInAddress() && !one && `Latent ${numberInAddress()} is not on this page.`;
  $(".absent").textContent = absent || unread || "";
  if (unread) return;
  asked = one;
  if (!one) {
    if (card.open) card.close();
    return;
  }
  const found = await cardOf(one);
  if (asked !== one) return;
  const label = card.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  card.replaceChildren(cardHead(one), cardBody(found));
  if (!card.open) card.showModal();
  (label && $(`[aria-label="${label}"]:enabled`, card) || $("#card-title")).focus();
  card.scrollTop = 0;
}

const cardBody = (found) => h("div", { class: "card-body" }, cardParts(found));

function cardHead(one) {
  const at = data.latents.indexOf(one);
  const turn = (title, by, sign) => h("button", { type: "button", disabled: !data.latents[at + by], "aria-label": `${title} latent`, on: { click: () => stepCard(by) } }, sign);
  return h("div", { class: "card-head" }, h("h2", { id: "card-title", tabindex: -1 }, `Latent ${one.latent}`),
    one.neuronpedia && h("a", { href: one.neuronpedia, target: "_blank", rel: "noopener noreferrer" }, "Neuronpedia ↗"),
    turn("Previous", -1, "←"), turn("Next", 1, "→"),
    h("button", { type: "button", on: { click: () => $("#card").close() } }, "Close"));
}

/* Stepping is no place to come back to. */
function stepCard(by) {
  const to = data.latents[data.latents.indexOf(latentInAddress()) + by];
  if (!to) return;
  history.replaceState(null, "", `#latent-${to.latent}`);
  showAddress();
}

function setUpDialog() {
  const card = $("#card");
  card.addEventListener("close", () => {
    if (location.hash.startsWith("#latent-")) {
      const row = $(`#ranking tr[data-latent="${numberInAddress()}"] a`);
      history.replaceState(null, "", location.pathname + location.search);
      row?.focus();
    }
  });
  card.addEventListener("click", (event) => {
    if (event.target === card) card.close();
  });
  addEventListener("hashchange", showAddress);
  showAddress();
}
