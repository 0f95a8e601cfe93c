/** Two videos side by side, in sync. */

import {byId, el, short} from "./dom.js";
import {closable, closeButton} from "./detail.js";
import {inStep} from "./player.js";

export class Compare {
  constructor() {
    this.dialog = byId("compare");
    closable(this.dialog, () => this.controls?.stop());
  }

  open(pair) {
    this.controls?.stop();
    const {videos, controls} = inStep(pair);
    this.controls = controls;
    const side = (result, at) => {
      const other = pair[1 - at];
      const lines = [
        [result.prompt, result.prompt !== other.prompt],
        [`seed ${result.seed}`, result.seed !== other.seed],
        [
          `${result.frames} frames, ${short(result.fps)} a second`,
          result.frames !== other.frames || result.fps !== other.fps,
        ],
      ];
      return el(
        "figure",
        {},
        el("div", {class: "picture"}, videos[at]),
        el(
          "figcaption",
          {},
          lines.map(([text, differs]) => el("p", {class: differs && "differs"}, text)),
        ),
      );
    };
    this.dialog.replaceChildren(
      el("header", {}, el("h2", {id: "compare-title"}, "Side by side"), closeButton(this.dialog)),
      el("div", {class: "pair"}, pair.map(side)),
      controls.element,
    );
    this.dialog.showModal();
  }
}
