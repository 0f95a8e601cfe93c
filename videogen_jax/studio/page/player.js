/** Videos: muted looping ones, one with controls, and two that play in sync. */

import {button, el, icon, place, reducedMotion} from "./dom.js";

/** A muted looping video that starts by itself unless the user prefers reduced motion. */
export function loop(result, label, {plays = !reducedMotion.matches} = {}) {
  const video = el("video", {
    src: result.video,
    poster: result.poster,
    loop: true,
    playsinline: true,
    preload: "auto",
    "aria-label": label,
    width: result.width,
    height: result.height,
  });
  video.muted = true;
  video.autoplay = plays;
  return video;
}

/** The browser may reject playing (element removed, power saving); the controls then show that it is paused. */
const play = (video) => video.play().catch(() => {});

/** Controls of one or more videos that move together: play or pause, and a slider over the frames. */
class Controls {
  constructor(videos, frames, fps, label) {
    this.videos = videos;
    this.frames = frames;
    this.fps = fps;
    this.toggle = button("Pause", {symbol: "pause", iconOnly: true, onclick: () => this.switch()});
    this.slider = el("input", {type: "range", min: 0, max: frames - 1, step: 1, value: 0, "aria-label": label});
    this.count = el("span", {class: "count"});
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.element = el("div", {class: "controls"}, this.toggle, this.slider, this.count);
    for (const kind of ["play", "pause"]) videos[0].addEventListener(kind, () => this.showState());
    this.write(0);
    this.showState();
    this.tick();
  }

  get frame() {
    return Number(this.slider.value);
  }

  switch() {
    if (this.videos[0].paused) this.videos.forEach(play);
    else this.videos.forEach((video) => video.pause());
  }

  /** Shows one frame and pauses there. */
  seek(frame) {
    for (const video of this.videos) {
      video.pause();
      video.currentTime = (frame + 0.5) / this.fps;
    }
    this.write(frame);
  }

  write(frame) {
    place(this.slider, frame);
    this.slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${this.frames}`);
    this.count.textContent = `${frame + 1} / ${this.frames}`;
  }

  showState() {
    const name = this.videos[0].paused ? "Play" : "Pause";
    this.toggle.setAttribute("aria-label", name);
    this.toggle.title = name;
    this.toggle.replaceChildren(icon(name.toLowerCase()));
  }

  /** Moves the slider along while the videos are on the page. */
  tick() {
    const [video] = this.videos;
    if (!video.paused) this.write(Math.min(this.frames - 1, Math.floor(video.currentTime * this.fps)));
    if (!this.stopped) requestAnimationFrame(() => this.tick());
  }

  stop() {
    this.stopped = true;
    for (const video of this.videos) video.pause();
  }
}

/** One video with its controls: {element, controls}. */
export function player(result) {
  const video = loop(result, result.prompt);
  const controls = new Controls([video], result.frames, result.fps, "Frame");
  video.addEventListener("click", () => controls.switch());
  return {element: el("div", {class: "player"}, el("div", {class: "picture"}, video), controls.element), controls};
}

const DRIFT = 0.06; // seconds by which two videos may differ before the second is corrected

/** Two videos that start, loop and pause together, whatever their lengths. */
export function inStep(results) {
  const videos = results.map((result) => loop(result, result.prompt));
  const longest = results[0].frames / results[0].fps >= results[1].frames / results[1].fps ? 0 : 1;
  const [lead, other] = [videos[longest], videos[1 - longest]];
  other.loop = false; // the shorter one stays on its last frame until the longer one ends
  const controls = new Controls([lead, other], results[longest].frames, results[longest].fps, "Moment");
  let before = 0;
  const align = () => {
    if (controls.stopped) return;
    const again = lead.currentTime < before;
    before = lead.currentTime;
    const inside = lead.currentTime < other.duration - DRIFT;
    if (inside && !lead.seeking && (again || Math.abs(lead.currentTime - other.currentTime) > DRIFT)) {
      if (!other.seeking) other.currentTime = lead.currentTime;
    }
    if (inside && !lead.paused && other.paused) play(other);
    if (lead.paused && !other.paused) other.pause();
    requestAnimationFrame(align);
  };
  align();
  return {videos, controls};
}
