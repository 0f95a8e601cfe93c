/** Waiting and running jobs: a card for each; the one nearest to its end is followed by its event stream. */

import {api, connection, follow} from "./api.js";
import {byId} from "./dom.js";
import {JobCard} from "./job_card.js";

export const OVER = ["done", "failed", "cancelled"];
const RETRY = 1000; // milliseconds before a broken stream is opened again

export class Jobs {
  /** onDone(result): a video is finished. actions: what the cards' buttons do; see JobCard. */
  constructor({onDone, actions}) {
    this.list = byId("jobs");
    this.cards = new Map();
    this.onDone = onDone;
    this.actions = {...actions, cancel: (job) => this.cancel(job), dismiss: (job) => this.dismiss(job)};
    this.model = null;
    connection.onBack(() => this.refresh());
  }

  setModel(model) {
    this.model = model;
    for (const card of this.cards.values()) card.setModel(model);
  }

  /** Adds a job that was just submitted. */
  add(job) {
    this.clearDone();
    this.update(job);
    this.followNext();
  }

  /** A finished card stays until another job begins; its video is in the gallery. */
  clearDone() {
    for (const [id, card] of this.cards) if (card.job.state === "done") this.remove(id);
  }

  /** Loads all jobs that wait, run, or have failed since the page was opened. */
  async refresh() {
    let jobs;
    try {
      jobs = (await api("/jobs")).jobs;
    } catch {
      return; // the connection shows the notice, and calls this again
    }
    const present = new Set(jobs.map((job) => job.id));
    for (const job of jobs) if (this.cards.has(job.id) || !OVER.includes(job.state)) this.update(job);
    for (const card of [...this.cards.values()]) {
      const {job} = card;
      if (job.state === "done" && !card.result && !card.fetching) this.finished(job, card);
      if (present.has(job.id) || OVER.includes(job.state)) continue;
      this.update({...job, state: "failed", reason: "The studio was restarted before this video was finished."});
    }
    this.followNext();
  }

  update(job) {
    let card = this.cards.get(job.id);
    const before = card?.job.state;
    if (!card) {
      card = new JobCard(job, this.model, this.actions);
      this.cards.set(job.id, card);
      this.list.append(card.element);
    }
    if (job.state === "running" && before !== "running") this.clearDone();
    card.update(job);
    if (job.state !== before) this.announce(job, card);
    if (job.state === "cancelled") this.remove(job.id);
    if (job.state === "done" && before !== "done") this.finished(job, card);
    else if (job.stage !== this.stage && job.state === "running") this.announce(job, card);
    this.title();
  }

  async finished(job, card) {
    card.fetching = true;
    try {
      const result = await api(`/results/${encodeURIComponent(job.result)}`);
      card.warn(null);
      card.setResult(result);
      this.onDone(result);
    } catch (error) {
      card.warn(error.message);
    } finally {
      card.fetching = false;
    }
  }

  /** Announces changes of states and stages, but not every step, to screen readers. */
  announce(job, card) {
    this.stage = job.stage;
    byId("progress").textContent = `${card.sentence}: ${job.prompt}`;
  }

  title() {
    const running = [...this.cards.values()].find(({job}) => job.state === "running");
    document.title = running ? `${running.sentence} · VideoGen studio` : "VideoGen studio";
  }

  /** Follows the job that is nearest to its end; the others are reloaded when that one moves on. */
  followNext() {
    const active = [...this.cards.values()].map((card) => card.job).filter((job) => !OVER.includes(job.state));
    const next = active.find((job) => job.state === "running") ?? active[0];
    if (next?.id === this.followed) return;
    this.unfollow?.();
    this.unfollow = null;
    this.followed = next?.id;
    if (!next) return;
    let position = next.position;
    this.unfollow = follow(
      next.id,
      (job) => {
        this.update(job);
        if (OVER.includes(job.state)) {
          this.unfollow?.();
          this.followed = null;
          this.refresh();
        } else if (job.position !== position) {
          position = job.position;
          if (active.length > 1) this.refresh();
        }
      },
      () => {
        this.followed = null;
        setTimeout(() => this.refresh(), RETRY);
      },
    );
  }

  async cancel(job) {
    try {
      await api(`/jobs/${encodeURIComponent(job.id)}`, {method: "DELETE"});
    } catch (error) {
      this.cards.get(job.id)?.writeButtons();
      this.cards.get(job.id)?.warn(error.message);
      return;
    }
    this.refresh();
  }

  /** Removes the card of a deleted video. */
  forget(result) {
    for (const {job} of [...this.cards.values()]) if (job.result === result) this.remove(job.id);
  }

  dismiss(job) {
    this.remove(job.id);
  }

  remove(id) {
    const card = this.cards.get(id);
    if (!card) return;
    card.remove();
    this.cards.delete(id);
    this.title();
  }
}
