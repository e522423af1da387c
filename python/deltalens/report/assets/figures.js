/* A figure is one tab stop; arrow keys step from point to point. */
function setUpFigures() {
  const shown = Object.entries(data.steering?.points ?? {}).map(([id, point]) => [document.getElementById(id), point]).filter(([group]) => group);
  shown.forEach(([group, point], at) => {
    const said = pointLines(point);
    filled(group, { tabindex: at ? -1 : 0, role: "button", "aria-label": said.join(", ") }, []);
    const on = { pointerenter: () => showTip(group, said), focus: () => showTip(group, said), pointerleave: hideTip, blur: hideTip };
    for (const [event, act] of Object.entries(on)) group.addEventListener(event, act);
    group.addEventListener("click", () => openLatent(point.latent));
    group.addEventListener("keydown", (event) => steer(event, shown, at, point));
  });
}

function steer(event, shown, at, point) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Enter" || event.key === " ") openLatent(point.latent);
  else if (step) shown[(at + step + shown.length) % shown.length][0].focus();
  else return;
  event.preventDefault();
}

function openLatent(latent) {
  if (byLatent.has(latent)) location.hash = `latent-${latent}`;
}

function pointLines(point) {
  const one = byLatent.get(point.latent);
  const tokens = (one?.promotes ?? []).slice(0, 5).map(([text]) => text.trim()).join(" ");
  const lines = [`Latent ${point.latent}`, `${point.set}, rank ${point.rank}`,
    `${points(point.change)} points, ${interval(point)}, n = ${point.n}`, `strength ${number(point.strength)}`];
  return [...lines, one?.names?.[0]?.name, tokens].filter(Boolean);
}

function showTip(group, lines) {
  const tip = $("#tip"), place = group.getBoundingClientRect();
  tip.replaceChildren(...lines.map((line_, at) => h(at ? "div" : "b", {}, line_)));
  tip.hidden = false;
  const left = Math.min(place.right + 10, innerWidth - tip.offsetWidth - 8);
  const top = Math.min(place.bottom + 8, innerHeight - tip.offsetHeight - 8);
  Object.assign(tip.style, { left: `${Math.max(8, left)}px`, top: `${Math.max(8, top)}px` });
}

function hideTip() {
  $("#tip").hidden = true;
}
