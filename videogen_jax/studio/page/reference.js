/** The reference image: uploaded, dropped, or a frame of an earlier video. */

import {api} from "./api.js";
import {byId, say} from "./dom.js";

export class Reference {
  constructor() {
    /** null, {upload: id} or {result: id, frame: k}: the `reference` of a job request. */
    this.value = null;
    this.error = byId("reference-error");
    this.drop = byId("reference-drop");
    this.file = byId("reference-file");
    this.file.addEventListener("change", () => this.file.files[0] && this.upload(this.file.files[0]));
    byId("reference-remove").addEventListener("click", () => {
      this.clear();
      this.file.focus();
    });
    const area = byId("composer");
    area.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.drop.classList.add("over");
    });
    area.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    area.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      if (event.dataTransfer.files[0]) this.upload(event.dataTransfer.files[0]);
    });
  }

  /** Whether the model starts from a reference image, and whether it can draw one of its own. */
  setModel({reads_reference: reads, draws_reference: draws}) {
    byId("reference").hidden = !reads;
    byId("reference-need").textContent = draws ? "optional" : "needed: this model draws none";
  }

  /** Uploads an image; returns false, and shows the reason, if the server rejects it. */
  async upload(file, name = file.name) {
    say(this.error, null);
    if (!file.type.startsWith("image/")) {
      say(this.error, `${name} is not an image; a PNG, JPEG or WebP file is needed.`);
      return false;
    }
    this.drop.setAttribute("aria-busy", "true");
    try {
      const {id, url, width, height} = await api("/uploads", {method: "POST", body: file, type: file.type});
      this.set({upload: id}, url, `${name}, ${width} × ${height}`);
      return true;
    } catch (error) {
      say(this.error, error.message);
      return false;
    } finally {
      this.drop.removeAttribute("aria-busy");
      this.file.value = "";
    }
  }

  /** Uses the reference image of a video again; returns false, and shows the reason, if that fails. */
  async copy(result) {
    let image;
    try {
      image = await (await fetch(result.reference)).blob();
    } catch {
      say(this.error, "The reference image of that video could not be fetched.");
      return false;
    }
    return this.upload(image, `The reference of “${result.prompt}”`);
  }

  setFrame(result, frame) {
    this.set(
      {result: result.id, frame},
      `/api/v1/results/${encodeURIComponent(result.id)}/frames/${frame}.png`,
      `Frame ${frame + 1} of “${result.prompt}”`,
    );
  }

  set(value, url, name) {
    this.value = value;
    byId("reference-preview").src = url;
    byId("reference-name").textContent = name;
    this.show(true);
  }

  clear() {
    this.value = null;
    byId("reference-preview").removeAttribute("src");
    say(this.error, null);
    this.show(false);
  }

  show(chosen) {
    this.drop.hidden = chosen;
    byId("reference-chosen").hidden = !chosen;
    if (chosen) say(this.error, null);
  }
}
