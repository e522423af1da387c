/* Printed is the open card, or the cards that were asked for, or the page. */
const PRINTED_MOST = 25;

function setUpPrint() {
  $("#print").addEventListener("click", printShown);
  addEventListener("beforeprint", () => {
    const one = latentInAddress();
    if ($("#card").open && !$("#printed").childElementCount) $("#printed").append(printedCard(one, $("#card .card-body").cloneNode(true)));
  });
  addEventListener("afterprint", () => $("#printed").replaceChildren());
}

async function printShown() {
  const shown = shownLatents().slice(0, PRINTED_MOST);
  const cards = await Promise.all(shown.map(cardOf));
  $("#printed").replaceChildren(...shown.map((one, at) => printedCard(one, cardBody(cards[at]))));
  print();
}

const printedCard = (one, body) => h("article", {}, h("h2", {}, `Latent ${one.latent}`), body);
