/** Elements, icons and formats shared by all parts of the page. */

const SVG = "http://www.w3.org/2000/svg";

/** The element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Creates an element: `el("button", {class: "primary", onclick: go}, "Go")`.
 * Functions become listeners; false and null omit the attribute, true sets it without a value.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

/** A symbol of index.html; decorative, so hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an icon and a text, or with the icon alone, whose label is then the text. */
export function button(text, {symbol = null, iconOnly = false, ...attributes} = {}) {
  const name = iconOnly ? {"aria-label": text, title: text, class: "icon"} : {};
  return el(
    "button",
    {type: "button", ...name, ...attributes},
    symbol && icon(symbol),
    iconOnly ? null : el("span", {}, text),
  );
}

/** Shows a sentence in an element that is hidden while empty. */
export function say(element, sentence) {
  element.textContent = sentence ?? "";
  element.hidden = !sentence;
}

export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** Sets a slider and fills its track up to the value. */
export function place(range, value) {
  range.value = value;
  const filled = (range.value - range.min) / (range.max - range.min || 1);
  range.style.setProperty("--filled", `${100 * filled}%`);
}

const DATES = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "short"});

/** Formats a date of the server, seconds since 1970 or ISO 8601, in the user's locale. */
export const date = (value) => DATES.format(new Date(typeof value === "number" ? value * 1000 : value));

/** 2.0666 -> "2.1", 31 -> "31". */
export const short = (value) => String(Math.round(value * 10) / 10);

/** An approximate duration: "8 s", "2 min". */
export const duration = (seconds) =>
  seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
