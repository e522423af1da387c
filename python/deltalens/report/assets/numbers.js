const NONE = "–";
const known = (value) => value !== null && value !== undefined;
const minus = (text) => text.replace("-", "−");
const percent = (share, digits = 0) => (known(share) ? `${(100 * share).toFixed(digits)}%` : NONE);
const points = (share) => (known(share) ? minus(`${share > 0 ? "+" : ""}${(100 * share).toFixed(1)}`) : NONE);
const interval = (rate) =>
  known(rate.rate) ? `${percent(rate.rate)} [${(100 * rate.low).toFixed(0)}, ${(100 * rate.high).toFixed(0)}]` : NONE;

function number(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  return minus(size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3))));
}

const aucText = ({ auc, low, high }) =>
  known(auc) ? auc.toFixed(2) + (known(low) ? ` [${low.toFixed(2)}, ${high.toFixed(2)}]` : "") : NONE;
const pValue = (value) => (known(value) ? String(Number(value.toPrecision(2))) : NONE);
const plusMinus = (value, error) => number(value) + (known(error) ? ` ± ${number(error)}` : "");

/* Numbers of a column to the same place after the point, with the power of ten they share. */
function sharedScale(values) {
  const largest = Math.max(0, ...values.filter(known).map(Math.abs));
  const place = largest > 0 ? Math.floor(Math.log10(largest)) : 0;
  const power = place < -1 || place > 3 ? place : 0;
  const digits = Math.max(0, Math.min(6, 2 - (place - power)));
  const show = (value) => (known(value) ? minus((value / 10 ** power).toFixed(digits)) : NONE);
  return { unit: power ? ` × 10${superscript(power)}` : "", show };
}

const superscript = (power) => [...String(power)].map((digit) => ({ "-": "⁻" })[digit] ?? "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
