/** Elements, icons and the few formats that all parts of the page share. */

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element: `el("button", {class: "primary", onclick: go}, "Go")`.
 * Properties that are functions become listeners; false and null leave the attribute out, true gives it no value.
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

/** One of the symbols in index.html; decoration, so it is hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an icon and a text, or the icon alone, which is then named by the text. */
export function button(text, {symbol = null, iconOnly = false, ...attributes} = {}) {
  const name = iconOnly ? {"aria-label": text, title: text, class: "icon"} : {};
  return el(
    "button",
    {type: "button", ...name, ...attributes},
    symbol && icon(symbol),
    iconOnly ? null : el("span", {}, text),
  );
}

/** Shows a sentence in an element that is hidden while it has nothing to say. */
export function say(element, sentence) {
  element.textContent = sentence ?? "";
  element.hidden = !sentence;
}

export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** Moves a slider; its track is filled up to there. */
export function place(range, value) {
  range.value = value;
  const filled = (range.value - range.min) / (range.max - range.min || 1);
  range.style.setProperty("--filled", `${100 * filled}%`);
}

const DATES = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "short"});

/** A date as the server writes it, seconds since 1970 or ISO 8601, in the reader's own manner. */
export const date = (value) => DATES.format(new Date(typeof value === "number" ? value * 1000 : value));

/** 2.0666 -> "2.1", 31 -> "31". */
export const short = (value) => String(Math.round(value * 10) / 10);

/** About how long, in words: "8 s", "2 min". */
export const duration = (seconds) =>
  seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
