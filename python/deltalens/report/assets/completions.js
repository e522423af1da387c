/* Completions, plain or token by token: the darker a token, the less probable the model found it. */
const SURPRISING = 8; // nats at which a token is darkest
const FIRST_TOKENS = 80;
const shadingNote = () => (data.completions.length ? " Completions: the darker a token, the less probable the model found it." : "");

function bothCompletions(pair) {
  const { positive, negative } = data.pairs[pair], found = data.completions[pair] ?? [];
  return h("div", { class: "answers" },
    completion("shows the behaviour", positive, found[0]), completion("does not", negative, found[1]));
}

function completion(title, text, found) {
  if (!found) return answer(title, text);
  const { tokens, log_p, rest, count, total } = found;
  const more = count - Math.min(FIRST_TOKENS, tokens.length);
  return h("div", { class: "answer" },
    h("div", { class: "label" }, title, h("span", { class: "sum" }, `log p ${number(total)}, ${count} ${count === 1 ? "token" : "tokens"}`)),
    surprisalStrip(tokens.slice(0, FIRST_TOKENS), log_p),
    more > 0 && folded({ class: "more" }, `${more} more tokens`,
      () => [surprisalStrip(tokens.slice(FIRST_TOKENS), log_p.slice(FIRST_TOKENS)), rest && h("div", { class: "text" }, rest)]));
}

function surprisalStrip(tokens, logP) {
  return h("div", { class: "strip" }, tokens.map((text, at) => shaded(text, logP[at], "--hot", -logP[at] / SURPRISING, "")));
}
