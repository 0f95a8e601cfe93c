/** Seed, frames, frame rate, guidance and steps. An empty field stands for the model's own value. */

import {byId, el, place, say, short} from "./dom.js";

// `most` is where a slider ends, as larger values are rarely useful; the number beside it accepts all allowed values.
const FIELDS = [
  {name: "frames", label: "Frames", step: 1},
  {name: "fps", label: "Frames a second", step: "any", most: 60},
  {
    name: "guidance_scale",
    label: "Guidance",
    step: "any",
    most: 10,
    hint: "How closely the words are followed; at 1 they are not stressed.",
  },
  {
    name: "reference_guidance_scale",
    label: "Reference guidance",
    step: "any",
    most: 10,
    hint: "How closely the reference image is kept to.",
  },
  {name: "steps", label: "Steps", step: 1, most: 60, hint: "More take longer and look cleaner."},
  {name: "min_guidance_scale", label: "Guidance at the start", step: "any", most: 10, hint: "Of the first frame."},
  {name: "motion_bucket_id", label: "Motion", step: 1, hint: "How much motion there is to be."},
  {
    name: "noise_aug_strength",
    label: "Noise on the reference image",
    step: "any",
    most: 1,
    hint: "More lets the video depart from it.",
  },
  {name: "motion_scale", label: "Motion", step: 1, hint: "0 to 2: little to much; 3 to 5: as a loop; 6 to 8: another style."},
  {name: "strength", label: "Strength of the upper stage", step: "any", hint: "More goes further from the lower video."},
  {name: "conditioning_fps", label: "Frame rate of the motion", step: "any", most: 30, hint: "A higher one is calmer."},
];
/** The settings of stages among the fields. */
export const STAGE_FIELDS = FIELDS.map(({name}) => name).filter((name) => name !== "frames" && name !== "fps");

/** The values of a setting in the stages that have it, in order; only the cascade's use reference guidance. */
export function used(stages, name) {
  const having = Object.keys(stages ?? {}).filter(
    (stage) => stage !== "reference" || name !== "reference_guidance_scale",
  );
  return having.map((stage) => stages[stage][name]).filter((value) => value != null);
}

export class Settings {
  constructor() {
    this.seed = byId("seed");
    this.random = byId("seed-random");
    this.last = byId("seed-last");
    this.fields = new Map();
    this.random.addEventListener("change", () => this.seedChanged());
    this.seed.addEventListener("input", () => this.seedChanged());
    this.last.addEventListener("click", () => {
      this.random.checked = false;
      this.seed.value = this.lastSeed;
      this.seedChanged();
    });
    byId("settings-reset").addEventListener("click", () => this.fill({}));
    byId("setting-fields").append(...FIELDS.map((field) => this.row(field)));
    this.seedChanged();
  }

  row({name, label, step, most = Infinity, hint}) {
    const number = el("input", {
      id: name,
      type: "number",
      inputmode: "decimal",
      step,
      "aria-describedby": `${name}-hint ${name}-error`,
    });
    const range = el("input", {type: "range", step: step === "any" ? 0.5 : step, "aria-label": label, tabindex: -1});
    const error = el("p", {id: `${name}-error`, class: "error", role: "alert", "data-error": name, hidden: true});
    const hintLine = el("p", {id: `${name}-hint`, class: "hint"}, hint ?? "");
    number.addEventListener("input", () => this.changed(name));
    range.addEventListener("input", () => {
      number.value = range.value;
      this.changed(name);
    });
    const row = el(
      "div",
      {class: "setting"},
      el("div", {class: "setting-head"}, el("label", {for: name}, label), number),
      range,
      hintLine,
      error,
    );
    this.fields.set(name, {row, number, range, error, hint: hintLine, text: hint, most, standard: null, limits: null});
    return row;
  }

  /**
   * defaults: field -> value, or null where stage_defaults differ; limits: field -> [least, most], or null for a setting
   * that the model does not have.
   */
  setModel({defaults, stage_defaults: stages, limits}) {
    for (const [name, field] of this.fields) {
      field.standard = defaults[name] ?? null;
      field.limits = limits[name];
      field.row.hidden = !field.limits;
      if (!field.limits) {
        field.number.value = "";
        continue;
      }
      [field.number.min, field.number.max] = field.limits;
      [field.range.min, field.range.max] = [field.limits[0], Math.min(field.limits[1], field.most)];
      field.number.placeholder = field.standard ?? "auto";
      const own = used(stages, name);
      if (field.standard === null && own.length)
        field.hint.textContent = `${field.text} The model’s own, stage by stage: ${own.join(", ")}.`;
      this.changed(name);
    }
  }

  changed(name) {
    const field = this.fields.get(name);
    const empty = field.number.value === "";
    const middle = (Number(field.range.min) + Number(field.range.max)) / 2;
    place(field.range, empty ? (field.standard ?? middle) : field.number.value);
    field.range.classList.toggle("own", empty);
    field.number.removeAttribute("aria-invalid");
    say(field.error, null);
    this.summarize();
  }

  seedChanged() {
    this.seed.disabled = this.random.checked;
    this.seed.placeholder = this.random.checked ? "a new one each time" : "0 to 4294967295";
    if (this.random.checked) this.seed.value = "";
    this.seed.removeAttribute("aria-invalid");
    say(byId("seed-error"), null);
    this.summarize();
  }

  setLastSeed(seed) {
    this.lastSeed = seed;
    say(this.last, `Use the last one again: ${seed}`);
  }

  number(name) {
    const field = this.fields.get(name);
    return field.number.value === "" ? field.standard : Number(field.number.value);
  }

  summarize() {
    const [frames, fps] = [this.number("frames"), this.number("fps")];
    const changed = STAGE_FIELDS.filter((name) => this.fields.get(name)?.number.value);
    const length = frames && fps ? `${short(frames / fps)} s` : null;
    if (length) this.fields.get("frames").hint.textContent = `${length} of video at ${short(fps)} frames a second.`;
    const seed = this.random.checked ? "random seed" : `seed ${this.seed.value || "?"}`;
    byId("settings-summary").textContent = [length, seed, changed.length ? `${changed.length} changed` : null]
      .filter(Boolean)
      .join(" · ");
  }

  /** The settings of a job request; throws {field, sentence} if a field is invalid. */
  values() {
    const values = {seed: null};
    if (!this.random.checked) {
      if (this.seed.value === "" || !this.seed.checkValidity()) {
        throw {field: "seed", sentence: "The seed is a whole number from 0 to 4294967295."};
      }
      values.seed = Number(this.seed.value);
    }
    for (const [name, {number, limits}] of this.fields) {
      if (!number.checkValidity()) {
        const kind = number.step === "1" ? "a whole number" : "a number";
        throw {
          field: name,
          sentence: limits ? `This is ${kind} from ${limits[0]} to ${limits[1]}.` : `This is ${kind}.`,
        };
      }
      values[name] = number.value === "" ? null : Number(number.value);
    }
    return values;
  }

  /** Fills the fields; missing or null values and the model's own empty them. An undefined seed is left alone. */
  fill({seed, ...values}) {
    if (seed !== undefined) {
      this.random.checked = seed === null;
      this.seed.value = seed ?? "";
      this.seedChanged();
    }
    for (const [name, field] of this.fields) {
      const value = values[name] ?? null;
      field.number.value = value === null || value === field.standard ? "" : value;
      this.changed(name);
    }
  }
}
