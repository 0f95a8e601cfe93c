/** The gallery: videos newest first, each playing under the pointer; two can be selected to compare them. */

import {api, connection} from "./api.js";
import {byId, el, icon, reducedMotion, say, short} from "./dom.js";
import {loop} from "./player.js";

const PAGE = 24;

export class Gallery {
  /** onOpen(result): a video is opened; onCompare([a, b]): two are selected. */
  constructor({onOpen, onCompare}) {
    this.list = byId("gallery-list");
    this.more = byId("gallery-more");
    this.compareButton = byId("compare-start");
    this.items = new Map();
    this.next = null;
    this.chosen = null; // while two are being selected: those selected so far
    this.onOpen = onOpen;
    this.onCompare = onCompare;
    this.more.addEventListener("click", () => this.load(this.next));
    this.compareButton.addEventListener("click", () => (this.chosen ? this.stopChoosing() : this.choose([])));
    connection.onBack(() => this.load());
  }

  /** Loads the newest page, or the page of results older than one. */
  async load(before = null) {
    this.more.disabled = true;
    try {
      const page = await api(`/results?limit=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ""}`);
      if (!before) this.forget(page.results);
      for (const result of page.results) if (!this.items.has(result.id)) this.list.append(this.item(result));
      this.next = page.next;
      say(byId("gallery-error"), null);
    } catch (error) {
      if (error.status) say(byId("gallery-error"), error.message);
      return;
    } finally {
      this.more.disabled = false;
      this.loaded = true;
      this.show();
    }
  }

  /** Reloads if the newest page is not the one shown, because a video was made or deleted elsewhere. */
  forget(results) {
    const shown = [...this.items.keys()].slice(0, results.length);
    if (shown.join() === results.map(({id}) => id).join()) return;
    this.items.clear();
    this.list.replaceChildren();
  }

  add(result) {
    if (!this.items.has(result.id)) this.list.prepend(this.item(result));
    this.show();
  }

  /** Updates a video from the server's response. */
  replace(result) {
    const item = this.items.get(result.id);
    if (item) item.result = result;
  }

  remove(id) {
    this.items.get(id)?.element.remove();
    this.items.delete(id);
    this.show();
  }

  show() {
    byId("gallery-empty").hidden = !this.loaded || this.items.size > 0;
    this.compareButton.hidden = this.items.size < 2;
    this.more.hidden = !this.next;
  }

  item(result) {
    const picture = el(
      "span",
      {class: "picture"},
      el("img", {src: result.poster, alt: "", loading: "lazy", width: result.width, height: result.height}),
      el("span", {class: "badge"}, icon("play"), `${short(result.frames / result.fps)} s`),
    );
    const open = el(
      "button",
      {type: "button", class: "tile"},
      picture,
      el("span", {class: "tile-prompt"}, result.prompt),
      el("span", {class: "tile-seed"}, `seed ${result.seed}`),
    );
    const {id} = result;
    const element = el("li", {}, open);
    let touched = false;
    const start = () => picture.querySelector("video") ?? picture.append(loop(result, "", {plays: true}));
    const stop = () => picture.querySelector("video")?.remove();
    open.addEventListener(
      "pointerenter",
      (event) => event.pointerType === "mouse" && !reducedMotion.matches && start(),
    );
    open.addEventListener("focus", () => open.matches(":focus-visible") && !reducedMotion.matches && start());
    open.addEventListener("pointerdown", (event) => (touched = event.pointerType !== "mouse"));
    open.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && stop());
    open.addEventListener("blur", stop);
    open.addEventListener("click", (event) => {
      const {result} = this.items.get(id);
      if (this.chosen) return this.pick(result);
      // The first touch on the picture plays it, the second opens it, as does a touch on its text.
      if (touched && picture.contains(event.target) && !picture.querySelector("video")) return start();
      this.onOpen(result);
    });
    this.items.set(result.id, {result, element, open});
    return element;
  }

  /** Starts the selection of two videos, some of which may be selected already. */
  choose(results) {
    this.chosen = results;
    this.showChoice();
  }

  pick(result) {
    const without = this.chosen.filter(({id}) => id !== result.id);
    this.chosen = without.length < this.chosen.length ? without : [...this.chosen, result];
    this.showChoice();
    if (this.chosen.length === 2) {
      const pair = this.chosen;
      this.stopChoosing();
      this.onCompare(pair);
    }
  }

  stopChoosing() {
    this.chosen = null;
    this.showChoice();
  }

  showChoice() {
    const chosen = this.chosen;
    this.list.classList.toggle("choosing", chosen !== null);
    this.compareButton.querySelector("span").textContent = chosen ? "Stop choosing" : "Compare";
    say(byId("compare-hint"), chosen && (chosen.length ? "Choose one more." : "Choose two videos."));
    for (const [id, {open}] of this.items) {
      if (chosen) open.setAttribute("aria-pressed", String(chosen.some((result) => result.id === id)));
      else open.removeAttribute("aria-pressed");
    }
  }
}
