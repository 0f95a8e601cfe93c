/** The studio's page: its parts and the connections between them. */

import {api, connection} from "./api.js";
import {Compare} from "./compare.js";
import {Detail} from "./detail.js";
import {byId, reducedMotion, say} from "./dom.js";
import {Gallery} from "./gallery.js";
import {Jobs} from "./jobs.js";
import {Prompt} from "./prompt.js";
import {Reference} from "./reference.js";
import {STAGE_FIELDS, Settings, used} from "./settings.js";
import {sketch} from "./stages.js";

const POLL = 1500; // milliseconds between two requests for the model's status
const OPENED = /^#video=(.+)$/;

let model = null;

const prompt = new Prompt(() => byId("composer").requestSubmit());
const settings = new Settings();
const reference = new Reference();
const gallery = new Gallery({onOpen: (result) => visit(result.id), onCompare: (pair) => compare.open(pair)});
const compare = new Compare();
const detail = new Detail(() => model, {
  again,
  same: (result) => fill(result),
  frame: useFrame,
  compare: (result) => gallery.choose([result]),
  changed: (result) => gallery.replace(result),
  deleted: (id) => {
    gallery.remove(id);
    jobs.forget(id);
  },
  closed: () => OPENED.test(location.hash) && history.replaceState(null, "", location.pathname),
});
const jobs = new Jobs({
  onDone: (result) => gallery.add(result),
  actions: {open: (result) => visit(result.id), again, retry},
});

/** Polls the model until it is ready; the page can be used in the meantime. */
async function watchModel() {
  let status;
  try {
    model = await api("/model");
    status = model.status;
    if (model.defaults && model.limits) setModel();
    showStatus();
  } catch (error) {
    if (error.status) say(byId("notice"), error.message);
    return; // the connection calls this again
  }
  if (status === "loading" || status === "warming up") setTimeout(watchModel, POLL);
}

function setModel() {
  prompt.setModel(model.words ?? [], model.examples ?? [], model.reads_text || model.draws_reference);
  settings.setModel(model);
  reference.setModel(model);
  jobs.setModel(model);
}

function showStatus() {
  const {status, detail: why, name} = model;
  const chip = byId("model-status");
  chip.dataset.status = status;
  chip.textContent =
    status === "ready"
      ? `${name ?? "model"}, ready`
      : status === "failed"
        ? "Model failed"
        : `${name ?? "model"}, ${status}`;
  byId("served").textContent = `videogen_jax ${model.version}, model ${name}`;
  const waiting = status === "loading" || status === "warming up";
  say(
    byId("generate-note"),
    waiting
      ? `The model is ${status === "loading" ? "being loaded" : "warming up"}; your video will wait for it.`
      : null,
  );
  say(byId("notice"), status === "failed" ? `The model could not be loaded: ${why}` : null);
}

/** The job request of the form. */
const request = () => ({prompt: prompt.value, reference: reference.value, ...settings.values()});

/** Submits a job; an error is shown at the field that it concerns. */
async function submit(asked) {
  say(byId("composer-error"), null);
  try {
    const job = await api("/jobs", {method: "POST", json: asked});
    settings.setLastSeed(job.seed);
    jobs.add(job);
    showJob(job);
  } catch (error) {
    refuse(fieldOf(error.message), error.message);
  }
}

/** The field that an error of the server names, or null. */
function fieldOf(sentence) {
  const names = [...STAGE_FIELDS, "frames", "fps", "seed", "reference", "prompt"];
  const named = names.filter((name) => sentence.includes(name));
  return named.sort((one, other) => other.length - one.length)[0] ?? null; // one name may be a part of another
}

function refuse(field, sentence) {
  const place = document.querySelector(`[data-error="${field}"]`) ?? byId("composer-error");
  say(place, sentence);
  if (byId("settings").contains(place)) byId("settings").open = true;
  const input = byId(field);
  input?.setAttribute("aria-invalid", "true");
  (input?.matches("input, textarea") ? input : byId("generate")).focus();
}

function showJob(job) {
  const {element} = jobs.cards.get(job.id);
  const {top, bottom} = element.getBoundingClientRect();
  if (top >= 0 && bottom <= innerHeight) return;
  element.scrollIntoView({block: "start", behavior: reducedMotion.matches ? "auto" : "smooth"});
}

byId("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const needed = model?.reads_text !== false || !reference.value;
  if (needed && !prompt.value) return refuse("prompt", "Say what the video should show.");
  let asked;
  try {
    asked = request();
  } catch ({field, sentence}) {
    return refuse(field, sentence);
  }
  const button = byId("generate");
  button.disabled = true;
  await submit(asked);
  button.disabled = false;
});

/** Restores the form of a video, with its seed unless a new one is wanted. False if its reference is lost. */
async function fill(result, {seed = result.seed} = {}) {
  const {recipe} = result;
  prompt.value = recipe.prompt;
  settings.fill({seed, frames: recipe.num_frames, fps: recipe.fps, ...common(recipe.settings)});
  reference.clear();
  byId("composer").scrollIntoView({block: "start", behavior: "auto"});
  byId("prompt").focus({preventScroll: true});
  return recipe.reference ? reference.copy(result) : true;
}

/** The settings that are equal in all stages that have them; if they differ, the model's own were used. */
function common(stages) {
  const values = {};
  for (const name of STAGE_FIELDS) {
    const [first, ...others] = used(stages, name);
    values[name] = others.every((other) => other === first) ? first : null;
  }
  return values;
}

async function again(result) {
  if (await fill(result, {seed: null})) byId("composer").requestSubmit();
}

function retry(job) {
  jobs.dismiss(job);
  submit({prompt: job.prompt, seed: job.seed, ...job.settings});
}

function useFrame(result, frame) {
  reference.setFrame(result, frame);
  if (!prompt.value) prompt.value = result.prompt;
  byId("reference").scrollIntoView({block: "center", behavior: "auto"});
  byId("reference-remove").focus({preventScroll: true});
}

/** Opens a video by its URL, so that the browser's back button closes it and it can be linked to. */
function visit(id) {
  if (location.hash === `#video=${id}`) openVisited();
  else location.hash = `video=${id}`;
}

async function openVisited() {
  const id = location.hash.match(OPENED)?.[1];
  if (!id) return detail.close();
  try {
    detail.open(gallery.items.get(id)?.result ?? (await api(`/results/${encodeURIComponent(id)}`)));
  } catch (error) {
    if (error.status) say(byId("notice"), error.message);
  }
}

connection.onNotice = (sentence) => say(byId("notice"), sentence);
connection.onBack(watchModel);
addEventListener("hashchange", openVisited);

byId("sketch").append(...sketch());
await watchModel();
await Promise.all([jobs.refresh(), gallery.load()]);
openVisited();
