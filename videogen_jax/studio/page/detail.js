/** The dialog of one video: its recipe, its files, and the actions on it. */

import {api} from "./api.js";
import {button, byId, date, el, icon, say, short} from "./dom.js";
import {player} from "./player.js";
import {stageName} from "./stages.js";

/** Behaviour of all dialogs: a click outside closes them. */
export function closable(dialog, onClose) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    onClose();
    dialog.replaceChildren();
  });
}

export function closeButton(dialog) {
  return button("Close", {symbol: "close", iconOnly: true, onclick: () => dialog.close()});
}

export class Detail {
  /**
   * model(): the served model. actions: again(result), same(result), frame(result, k), compare(result),
   * changed(result), deleted(id), closed().
   */
  constructor(model, actions) {
    this.dialog = byId("detail");
    this.model = model;
    this.actions = actions;
    closable(this.dialog, () => {
      this.player?.controls.stop();
      this.result = null;
      this.actions.closed();
    });
  }

  open(result) {
    if (this.result?.id === result.id) return;
    this.player?.controls.stop();
    this.result = result;
    this.player = player(result);
    this.error = el("p", {class: "error", role: "alert", hidden: true});
    this.dialog.replaceChildren(
      el("header", {}, el("h2", {id: "detail-title"}, result.prompt), closeButton(this.dialog)),
      el(
        "div",
        {class: "sheet-body"},
        el("div", {}, this.player.element, this.downloads(), this.error),
        el("div", {class: "about"}, this.makeMore(), this.recipe(), this.remove()),
      ),
    );
    if (!this.dialog.open) this.dialog.showModal();
  }

  close() {
    if (!this.dialog.open) return;
    this.actions.closed(); // at once: the dialog's own close event comes later
    this.dialog.close();
  }

  leave(act) {
    const {result, player} = this;
    const frame = player.controls.frame;
    this.close();
    act(result, frame);
  }

  makeMore() {
    const {again, same, frame, compare} = this.actions;
    return el(
      "div",
      {class: "buttons stacked"},
      button("Again with another seed", {symbol: "again", class: "strong", onclick: () => this.leave(again)}),
      button("Same settings", {symbol: "sliders", onclick: () => this.leave(same)}),
      button("Use this frame as reference", {symbol: "image", onclick: () => this.leave(frame)}),
      button("Compare with another", {symbol: "compare", onclick: () => this.leave(compare)}),
    );
  }

  downloads() {
    const {video, gif, sheet} = this.result;
    const link = (text, href) =>
      el("a", {href: `${href}?download=1`, download: true, class: "button"}, icon("download"), text);
    return el("div", {class: "buttons"}, link("MP4", video), link("GIF", gif), link("PNG sheet", sheet));
  }

  recipe() {
    const {recipe, frames, fps, width, height, created} = this.result;
    const {device, ...versions} = recipe.software;
    const names = Object.keys(recipe.settings);
    const stages = names.map((name) => [
      stageName(name, names, this.model()?.resolution),
      sampled(recipe.settings[name]),
    ]);
    const rows = [
      ["Seed", String(recipe.seed)],
      ["Video", `${frames} frames, ${short(fps)} a second, ${width} × ${height}`],
      [
        "Starts from",
        recipe.reference ? `a given image, ${recipe.reference.slice(0, 12)}…` : "an image the model drew",
      ],
      ...stages,
      ["Model", `${recipe.model}, ${recipe.fingerprint.slice(0, 12)}…`],
      [
        "Made with",
        Object.entries(versions)
          .map((pair) => pair.join(" "))
          .join(", "),
      ],
      ["Device", device],
      ["Made", date(created)],
    ].filter(([, text]) => text);
    const json = el("pre", {tabindex: 0}, JSON.stringify(recipe, null, 2));
    const whole = el("details", {class: "fold"}, el("summary", {}, icon("chevron"), "As JSON"), json);
    return el(
      "section",
      {class: "recipe", "aria-label": "Recipe"},
      el(
        "div",
        {class: "section-head"},
        el("h3", {}, "Recipe"),
        button("Copy", {symbol: "copy", onclick: (event) => copy(event.currentTarget, json, whole)}),
      ),
      el(
        "dl",
        {},
        rows.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text))),
      ),
      whole,
    );
  }

  /** Asks for confirmation in place of the delete button. */
  remove() {
    const place = el("div", {class: "buttons remove"});
    const ask = () => {
      const keep = button("Keep", {onclick: rest});
      place.replaceChildren(
        el("span", {}, "Delete it for good?"),
        button("Delete", {class: "danger", onclick: () => this.delete()}),
        keep,
      );
      keep.focus();
    };
    const start = button("Delete", {symbol: "trash", onclick: ask});
    const pin = this.pin();
    const rest = () => {
      place.replaceChildren(pin, start);
      start.focus();
    };
    place.append(pin, start);
    return place;
  }

  /** A pinned video is not deleted to make room. */
  pin() {
    const set = async () => {
      const pinned = !this.result.pinned;
      try {
        this.result = await api(`/results/${encodeURIComponent(this.result.id)}`, {method: "PATCH", json: {pinned}});
      } catch (error) {
        return say(this.error, error.message);
      }
      toggle.setAttribute("aria-pressed", String(pinned));
      this.actions.changed(this.result);
    };
    const toggle = button("Pin", {
      symbol: "pin",
      title: "Keep it when the oldest videos make room for new ones",
      "aria-pressed": String(Boolean(this.result.pinned)),
      onclick: set,
    });
    return toggle;
  }

  async delete() {
    const {id} = this.result;
    try {
      await api(`/results/${encodeURIComponent(id)}`, {method: "DELETE"});
    } catch (error) {
      say(this.error, error.message);
      return;
    }
    this.close();
    this.actions.deleted(id);
  }
}

/** The settings of a stage in one line. */
function sampled({steps, sampler, guidance_scale: text, reference_guidance_scale: reference}) {
  const weights = [text !== 1 && `guidance ${text}`, ![1, undefined].includes(reference) && `reference ${reference}`];
  return [`${steps} steps`, ...weights.filter(Boolean), sampler].filter(Boolean).join(", ");
}

/** Copies the recipe; if the browser does not allow it (no https), selects it to be copied by hand. */
async function copy(from, pre, fold) {
  const label = from.querySelector("span");
  try {
    await navigator.clipboard.writeText(pre.textContent);
    label.textContent = "Copied";
  } catch {
    fold.open = true;
    getSelection().selectAllChildren(pre);
    label.textContent = "Selected: copy it";
  }
}
