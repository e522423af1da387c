/* What is known of one latent, part by part; what is not known is not there. */
function cardParts(one) {
  return [numbersPart(one), lensPart(one), namesPart(one), steeringPart(one), completionsPart(one), tokensPart(one),
    one.per_pair && pairBars(one), ablationPart(one), examplesPart(one)].filter(Boolean);
}

function numbersPart(one) {
  if (one.rank === null) return h("p", { class: "note" }, `Among the first latents by ${one.sets.join(", ")}, not among the ranked ones.`);
  const scale = sharedScale([one.score]);
  const values = [
    ["rank", one.rank], ["score", `${scale.show(one.score)}${known(one.stderr) ? ` ± ${scale.show(one.stderr)}` : ""}${scale.unit}`],
    ["family-wise p", known(one.p_value) && pValue(one.p_value)],
    ["95% of ranks", known(one.rank_low) && (one.rank_low === one.rank_high ? one.rank_low : `${one.rank_low}–${one.rank_high}`)],
    ["push", [plusMinus(one.push, one.push_stderr), unsureMark(one)]], ["presence", plusMinus(one.presence, one.presence_stderr)],
    ["δ of showing", number(one.positive)], ["δ of not showing", number(one.negative)],
    ...(one.detection ?? []).map((told) => [`AUC, ${told.tokens}, ${told.over}`, aucText(told)]),
  ];
  return h("dl", { class: "numbers" }, values.filter(([, value]) => value !== false).map(([name, value]) => h("div", {}, h("dt", { class: "label" }, name), h("dd", {}, value))));
}

function lensPart(one) {
  const ends = [["Promotes", one.promotes], ["Suppresses", one.suppresses]].filter(([, tokens]) => tokens?.length);
  if (!ends.length) return null;
  return h("section", { class: "lens" }, h("h3", {}, "Nearest unembedding tokens"), ends.map(([title, tokens]) =>
    h("p", {}, h("span", { class: "label" }, `${title} `), tokens.map(([text, cosine]) => h("span", { class: "token", title: `cosine ${number(cosine)}` }, text)))));
}

const NAMED_FROM = { examples: "From its top-activating examples", steering: "From its steered completions" };

function namesPart(one) {
  if (!one.names?.length) return null;
  return h("section", {}, h("h3", {}, "Interpretation"), one.names.map((found) =>
    h("div", { class: "names" }, h("b", {}, found.name), h("div", { class: "text" }, found.explanation),
      h("div", { class: "note" }, `${NAMED_FROM[found.kind] ?? found.kind}, by ${found.model}`))));
}

const ARM_TITLES = { away: "Studied model, steered away", toward: "Reference model, steered toward" };

function steeringPart(one) {
  if (!one.steering) return null;
  const arms = Object.entries(one.steering).map(([name, arm]) => {
    const shared = data.steering.arms[name];
    return h("div", {}, h("div", { class: "label" }, `${ARM_TITLES[name]}: ${shared.model}`),
      h("p", {}, armSentence(arm, shared)), curveChart(arm, shared, `${ARM_TITLES[name]}: rate over strengths`), sideEffects(arm, shared));
  });
  return h("section", { class: "steering" }, h("h3", {}, "Steering"), h("div", { class: "arms" }, arms),
    h("p", { class: "note" }, "Solid: the behaviour’s rate with 95% intervals; dotted: incoherent share, dashed: its budget; ring: the strength chosen."));
}

/* What steering did beside: a row for no steering and for each strength. */
function sideEffects(arm, shared) {
  const rows = [{ strength: 0, ...shared.unsteered }, ...arm.points].filter((point) => point.beside);
  if (!rows.length) return null;
  const neutral = rows.some((point) => known(point.beside.loss));
  const columns = ["strength", ...(neutral ? ["loss", "rise", "greedy changed"] : []), "tokens", "change", "cut"];
  return scroller("Side effects", h("table", { class: "beside" },
    h("caption", {}, neutral ? "Side effects: neutral text (nats a token; ! above 0.1), and the length of answers" : "The length of answers"),
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { class: "number", scope: "col" }, name)))),
    h("tbody", {}, rows.map((point) => h("tr", {}, besideCells(point, neutral).map((text) => h("td", { class: "number" }, text)))))));
}

function besideCells({ strength, beside }, neutral) {
  const read = [number(beside.loss), estimate(beside.rise) + (beside.marked ? " !" : ""), estimate(beside.changed, (share) => percent(share, 1))];
  return [number(strength), ...(neutral ? read : []), number(beside.length), estimate(beside.longer), percent(beside.cut)];
}

function estimate(found, show = number) {
  if (!found) return "";
  const [value, low, high] = found.map((one) => show(one));
  return low === undefined ? value : `${value} [${low}, ${high}]`;
}

function armSentence(arm, shared) {
  return [chosenSentence(arm, shared), comparedSentence(arm.compared)].filter(Boolean).join(" ");
}

function comparedSentence(compared) {
  if (!known(compared?.p)) return null;
  return `At strength ${number(compared.strength)}, where all latents are compared: ${points(compared.change)} points, p = ${number(compared.p)} by rank among random latents, ${number(compared.q)} adjusted for the set.`;
}

function chosenSentence(arm, shared) {
  if (!known(arm.chosen)) return "No strength tried stays within the incoherence budget.";
  const random = known(arm.beyond) ? (arm.beyond ? "; beyond every random latent" : "; within the range of random latents") : "";
  return `${interval(shared.unsteered)} → ${interval(arm)}, ${points(arm.change)} points at strength ${number(arm.strength)}${random}.`;
}

function completionsPart(one) {
  if (!one.steering) return null;
  const arms = Object.entries(one.steering).filter(([, arm]) => known(arm.chosen) && Object.keys(arm.completions).length);
  if (!arms.length) return null;
  return h("section", { class: "completions" }, h("h3", {}, "Sample completions"),
    h("p", { class: "note" }, "Evenly spaced prompts, the same for every latent."),
    arms.map(([name, arm]) => folded({}, `${ARM_TITLES[name]}, strength ${number(arm.strength)}`,
      () => Object.keys(arm.completions).map((prompt) => completionRow(prompt, data.steering.arms[name], arm)), { open: name === arms[0][0] })));
}

function completionRow(prompt, shared, arm) {
  const sides = [["unsteered", shared.completions[prompt]], ["steered", arm.completions[prompt]]].filter(([, found]) => found);
  return h("div", {}, promptBlock(data.steering.prompts[prompt]),
    h("div", { class: "answers" }, sides.map(([title, found]) => answer(title, found.text, found))));
}

function tokensPart(one) {
  if (!one.per_token?.length) return null;
  const largest = Math.max(...one.per_token.flatMap((shown) => shown.values.map(Math.abs))) || 1;
  return h("section", { class: "by-token" }, h("h3", {}, "Where in the prompt"),
    h("p", { class: "note" }, `The pairs it matters to most, token by token; a pair’s value is the mean over its tokens.${shadingNote()}`),
    effectLegend(largest), one.per_token.map((shown) => tokenBlock(shown, largest)));
}

function tokenBlock({ pair, start, values }, largest) {
  const tokens = data.tokens[pair], end = start + values.length;
  const cut = values.length < tokens.length ? `, tokens ${start + 1} to ${end} of ${tokens.length}` : "";
  return h("div", { class: "window" }, h("div", { class: "label" }, `pair ${data.pairs[pair].id}${cut}`),
    effectStrip(tokens, values, start, largest), data.completions[pair] && bothCompletions(pair));
}

function ablationPart(one) {
  if (!one.ablation) return null;
  const [estimate, exact] = one.ablation;
  return h("section", { class: "ablation" }, h("h3", {}, "Ablation"), h("p", {},
    `First-order estimate ${number(estimate)}, exact mean ablation ${number(exact)}.`));
}

function examplesPart(one) {
  const found = one.examples;
  if (!found) return null;
  return h("section", { class: "examples" }, h("h3", {}, "Examples"), h("p", { class: "note" }, found.summary),
    found.parts.map(([title, windows], at) => folded({}, title,
      () => windows.map((shown) => h("div", { class: "window" }, h("span", { class: "label" }, shown.where), activationStrip(shown, found.max))), { open: at === 0 })));
}
