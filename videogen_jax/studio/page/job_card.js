/** The card of one job: a track of its stages, and a large preview of one of them. */

import {button, duration, el, icon, reducedMotion, say} from "./dom.js";
import {Noise, moving, stageCaption, stageName} from "./stages.js";
import {loop} from "./player.js";

const STATES = {queued: "Waiting", done: "Finished", failed: "Failed", cancelled: "Cancelled"};

export class JobCard {
  /** actions: cancel(job), dismiss(job), retry(job), open(result), again(result). */
  constructor(job, model, actions) {
    this.job = job;
    this.model = model;
    this.actions = actions;
    this.rows = new Map();
    this.pinned = null;
    this.shown = null;
    this.noise = new Noise();
    this.heading = el("h2", {}, job.prompt);
    this.status = el("p", {class: "job-status"});
    this.warning = el("p", {class: "error", role: "alert", hidden: true});
    this.buttons = el("div", {class: "buttons"});
    this.picture = el("div", {class: "picture"}, this.noise.canvas);
    this.caption = el("figcaption");
    this.track = el("ol", {class: "track"});
    this.body = el("div", {class: "job-body"}, el("figure", {}, this.picture, this.caption), this.track);
    this.element = el(
      "article",
      {class: "card job", tabindex: -1},
      el("header", {}, el("div", {}, this.heading, this.status), this.buttons),
      this.warning,
      this.body,
    );
  }

  setModel(model) {
    this.model = model;
    this.update(this.job);
  }

  get names() {
    return this.job.stages.map(({name}) => name);
  }

  name(stage) {
    return stageName(stage, this.names, this.model?.resolution);
  }

  /** The progress of the job in a few words. */
  get sentence() {
    const {state, stage, position} = this.job;
    if (state === "running") return stage ? this.name(stage) : "Starting";
    if (state === "queued" && position > 0)
      return `Waiting, ${position === 1 ? "one video" : `${position} videos`} before it`;
    if (state === "queued")
      return this.model?.status === "ready" ? "Waiting, next in the queue" : "Waiting for the model to be ready";
    return STATES[state];
  }

  update(job) {
    this.job = job;
    this.element.dataset.state = job.state;
    this.body.hidden = job.state === "queued" || job.state === "failed" || job.state === "cancelled";
    this.writeStatus();
    if (this.buttonsFor !== job.state) this.writeButtons();
    for (const stage of job.stages) this.row(stage);
    if (job.state === "failed") this.warn(job.reason);
    this.show();
  }

  writeStatus() {
    const {state, step, of, eta_seconds: eta, seed, unknown_words: unknown} = this.job;
    const pieces = [el("b", {}, this.sentence)];
    if (state === "running" && of > 1) pieces.push(el("span", {class: "steps"}, `step ${step} of ${of}`));
    if (state === "running" && eta != null) pieces.push(el("span", {}, `about ${duration(eta)} left`));
    if (seed != null) pieces.push(el("span", {}, `seed ${seed}`));
    if (unknown?.length) pieces.push(el("span", {}, `unknown: ${unknown.join(", ")}`));
    this.status.replaceChildren(...pieces);
  }

  writeButtons() {
    this.buttonsFor = this.job.state;
    const {cancel, dismiss, retry} = this.actions;
    // A running job stops at its next step.
    const cancelling = ({currentTarget: pressed}) => {
      pressed.disabled = true;
      pressed.textContent = "Cancelling…";
      cancel(this.job);
    };
    const kinds = {
      queued: () => [button("Cancel", {onclick: cancelling})],
      running: () => [button("Cancel", {onclick: cancelling})],
      failed: () => [
        button("Try again", {symbol: "again", onclick: () => retry(this.job)}),
        button("Dismiss", {symbol: "close", iconOnly: true, onclick: () => dismiss(this.job)}),
      ],
      done: () => [button("Dismiss", {symbol: "close", iconOnly: true, onclick: () => dismiss(this.job)})],
      cancelled: () => [],
    };
    const focused = this.buttons.contains(document.activeElement);
    this.buttons.replaceChildren(...kinds[this.job.state]());
    if (focused) this.element.focus();
  }

  /** The entry of a stage in the track, created once and then updated. */
  row(stage) {
    let row = this.rows.get(stage.name);
    if (!row) {
      row = {
        label: el("span", {class: "stage-name"}),
        count: el("span", {class: "steps"}),
        bar: el("progress"),
        thumb: el("span", {class: "thumb"}),
      };
      row.button = el(
        "button",
        {type: "button", disabled: true, onclick: () => this.pin(stage.name)},
        el("span", {class: "mark"}, icon("check")),
        row.label,
        row.count,
        row.thumb,
      );
      row.element = el("li", {}, row.button, row.bar);
      this.rows.set(stage.name, row);
      this.track.append(row.element);
    }
    row.label.textContent = this.name(stage.name);
    row.bar.setAttribute("aria-label", `Progress of: ${this.name(stage.name)}`);
    row.element.dataset.state = stage.state;
    if (stage.state === "running") row.element.setAttribute("aria-current", "step");
    else row.element.removeAttribute("aria-current");
    row.count.textContent = stage.state === "running" && stage.of > 1 ? `${stage.step}/${stage.of}` : "";
    row.bar.hidden = stage.state !== "running";
    row.bar.max = Math.max(stage.of, 1);
    row.bar.value = stage.step;
    if (stage.preview && row.preview !== stage.preview) {
      row.preview = stage.preview;
      row.thumb.replaceChildren(moving(stage.preview, ""));
      row.button.disabled = false;
    }
  }

  /** Pins a stage in the large preview; a second click unpins it. */
  pin(stage) {
    this.pinned = this.pinned === stage ? null : stage;
    this.show();
  }

  /** The stage in the large preview: the pinned one, otherwise the last that has a preview. */
  show() {
    const made = this.names.filter((name) => this.rows.get(name)?.preview);
    const stage = this.pinned ?? (this.result ? "decode" : made.at(-1)) ?? null;
    for (const [name, {button}] of this.rows) button.setAttribute("aria-pressed", String(name === stage));
    const source = stage === "decode" && this.result ? this.result.video : this.rows.get(stage)?.preview;
    if (!source || source === this.shown) return;
    this.shown = source;
    const isVideo = source === this.result?.video;
    const picture = isVideo
      ? loop(this.result, `The video: ${this.job.prompt}`)
      : moving(source, `${this.name(stage)}: ${this.job.prompt}`);
    if (stage.startsWith("cascade")) picture.classList.add("pixelated");
    // The new picture fades in over the one before it.
    picture.addEventListener("animationend", () => {
      while (picture.previousSibling) picture.previousSibling.remove();
    });
    if (reducedMotion.matches) this.picture.replaceChildren(picture);
    else this.picture.append(picture);
    this.picture.dataset.stage = stage;
    this.caption.textContent = isVideo ? "" : stageCaption(stage, this.names, this.model?.resolution);
    if (isVideo)
      this.caption.append(
        button("Open", {class: "strong", onclick: () => this.actions.open(this.result)}),
        button("Again with another seed", {symbol: "again", onclick: () => this.actions.again(this.result)}),
      );
  }

  setResult(result) {
    this.result = result;
    const row = this.rows.get("decode");
    if (row) {
      row.preview ??= result.poster;
      row.thumb.replaceChildren(moving(result.poster, ""));
      row.button.disabled = false;
    }
    this.show();
  }

  warn(sentence) {
    say(this.warning, sentence);
  }

  remove() {
    this.noise.stop();
    this.element.remove();
  }
}
