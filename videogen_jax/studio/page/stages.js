/** The display names of a model's stages, and the small pictures that stand for them. */

import {reducedMotion} from "./dom.js";

const NAMES = {
  text: "Reading the sentence",
  reference: "Reference image",
  temporal: "Smooth motion",
  decode: "Final frames",
};
const CAPTIONS = {
  reference: "The image that the video starts from",
  temporal: "With the frames in between",
};

/** The width in pixels of a stage: "cascade_4" -> 32 if the last cascade stage is 16 and frames are 128 wide. */
function pixels(stage, stages, resolution) {
  const side = (name) => Number(name.match(/^cascade_(\d+)$/)?.[1]);
  const largest = Math.max(...stages.filter((name) => side(name)).map(side));
  return side(stage) && resolution ? Math.round((resolution * side(stage)) / largest) : null;
}

export function stageName(stage, stages, resolution) {
  const side = pixels(stage, stages, resolution);
  return NAMES[stage] ?? (side ? `Motion at ${side} × ${side}` : stage.replaceAll("_", " "));
}

export function stageCaption(stage, stages, resolution) {
  const side = pixels(stage, stages, resolution);
  return CAPTIONS[stage] ?? (side ? `The motion so far, ${side} × ${side} pixels` : "");
}

/** A square of noise, from which every diffusion starts, on a canvas; animated unless reduced motion is preferred. */
export class Noise {
  constructor(side = 24) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.canvas.height = side;
    this.canvas.setAttribute("aria-hidden", "true");
    this.canvas.className = "pixelated";
    this.draw();
    this.timer = reducedMotion.matches ? null : setInterval(() => this.canvas.offsetParent && this.draw(), 140);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(this.canvas.width, this.canvas.height);
    for (let at = 0; at < image.data.length; at += 4) {
      const light = 90 + 110 * Math.random();
      image.data[at] = light + 24 * (Math.random() - 0.5);
      image.data[at + 1] = light + 24 * (Math.random() - 0.5);
      image.data[at + 2] = light + 24 * (Math.random() - 0.5);
      image.data[at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  stop() {
    clearInterval(this.timer);
  }
}

/** Four small pictures from noise to a clear image, for a page without videos. */
export function sketch() {
  const disc = (side) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    canvas.className = "pixelated";
    canvas.setAttribute("aria-hidden", "true");
    const context = canvas.getContext("2d");
    context.fillStyle = "#22303c";
    context.fillRect(0, 0, side, side);
    context.fillStyle = "#f0a13a";
    context.arc(0.56 * side, 0.5 * side, 0.27 * side, 0, 2 * Math.PI);
    context.fill();
    return canvas;
  };
  return [new Noise(14).canvas, disc(7), disc(16), disc(168)];
}

/** An animated image; only its first frame if the user prefers reduced motion. */
export function moving(url, alt) {
  const image = new Image();
  image.src = url;
  image.alt = alt;
  if (!reducedMotion.matches) return image;
  const canvas = document.createElement("canvas");
  if (alt) canvas.setAttribute("role", "img");
  canvas.setAttribute(alt ? "aria-label" : "aria-hidden", alt || "true");
  image.addEventListener("load", () => {
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
  });
  return canvas;
}
