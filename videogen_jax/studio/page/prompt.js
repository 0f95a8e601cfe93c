/** The prompt box: suggests words during typing, marks unknown ones, and offers example prompts. */

import {button, byId, el, say} from "./dom.js";
import {Vocabulary, parts} from "./words.js";

const PAUSE = 350; // milliseconds without typing before unknown words are reported
const SUGGESTIONS = 6;

export class Prompt {
  constructor(onSubmit) {
    this.box = byId("prompt");
    this.marks = byId("prompt-marks");
    this.list = byId("suggestions");
    this.note = byId("prompt-note");
    this.error = byId("prompt-error");
    this.vocabulary = new Vocabulary([]);
    this.chosen = -1;
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("keydown", (event) => this.pressed(event, onSubmit));
    document.addEventListener("selectionchange", () => document.activeElement === this.box && this.suggest());
    this.box.addEventListener("blur", () => this.hide());
    this.mark();
  }

  get value() {
    return this.box.value.trim();
  }

  set value(text) {
    this.box.value = text;
    this.typed();
  }

  /** words: the words that the model knows; examples: example prompts; read: whether anything reads the prompt. */
  setModel(words, examples, read) {
    this.vocabulary = new Vocabulary(words);
    const hint = examples.length ? `For example: ${examples[0]}` : "A sentence";
    this.box.placeholder = read ? hint : "This model animates an image, and reads no words.";
    byId("examples").hidden = !examples.length;
    byId("examples")
      .querySelector("ul")
      .replaceChildren(
        ...examples.map((text) => el("li", {}, button(text, {class: "example", onclick: () => this.take(text)}))),
      );
    byId("words").hidden = this.vocabulary.open;
    byId("words-title").textContent = `The ${words.length} words it knows`;
    byId("words")
      .querySelector("ul")
      .replaceChildren(
        ...this.vocabulary.words.map((word) =>
          el("li", {}, button(word, {class: "chip", onclick: () => this.insert(word)})),
        ),
      );
    this.mark();
    this.tell();
  }

  take(text) {
    this.value = text;
    this.box.focus();
    this.box.setSelectionRange(text.length, text.length);
  }

  typed() {
    this.box.removeAttribute("aria-invalid");
    say(this.error, null);
    this.mark();
    this.suggest();
    this.tellSoon();
  }

  tellSoon() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.tell(), PAUSE);
  }

  /** The part of the text that ends at the caret, or null. */
  current() {
    const caret = this.box.selectionStart;
    if (caret !== this.box.selectionEnd) return null;
    return parts(this.box.value).find(({end}) => end === caret) ?? null;
  }

  /** Unknown words, except the one being typed. */
  unknown() {
    const current = document.activeElement === this.box ? this.current() : null;
    const typing = ({start, word}) => current?.start === start && this.vocabulary.completions(word).length > 0;
    return this.vocabulary.unknown(this.box.value).filter((part) => !typing(part));
  }

  /** Underlines unknown words on an invisible copy of the text behind the box. */
  mark() {
    const text = this.box.value;
    const pieces = [];
    let from = 0;
    for (const {start, end} of this.unknown()) {
      pieces.push(text.slice(from, start), el("mark", {}, text.slice(start, end)));
      from = end;
    }
    this.marks.replaceChildren(...pieces, text.slice(from) || this.box.placeholder, "\u200b");
  }

  /** Lists the unknown words and suggestions for them. */
  tell() {
    const seen = new Set();
    const lines = this.unknown()
      .filter(({word}) => !seen.has(word) && seen.add(word))
      .map(({word}) => {
        const near = this.vocabulary.near(word);
        return el(
          "p",
          {},
          el(
            "span",
            {},
            near.length ? `“${word}” is unknown to the model. Perhaps` : `“${word}” is unknown to the model.`,
          ),
          near.map((known) => button(known, {class: "chip", onclick: () => this.replaceAll(word, known)})),
        );
      });
    this.note.replaceChildren(...lines);
  }

  suggest() {
    const current = this.vocabulary.open ? null : this.current();
    const words = current ? this.vocabulary.completions(current.word).slice(0, SUGGESTIONS) : [];
    if (words.join() === this.words?.join() && !this.list.hidden) return;
    this.words = words;
    this.chosen = -1;
    this.box.removeAttribute("aria-activedescendant");
    this.list.replaceChildren(
      ...words.map((word, index) =>
        el(
          "li",
          {
            id: `suggestion-${index}`,
            class: "chip",
            role: "option",
            "aria-selected": "false",
            onpointerdown: (event) => event.preventDefault(), // the box keeps the focus
            onclick: () => this.accept(word),
          },
          el("b", {}, word.slice(0, current.word.length)),
          word.slice(current.word.length),
        ),
      ),
    );
    this.list.hidden = !words.length;
    byId("suggestion-count").textContent = words.length
      ? `${words.length} suggested: ${words.join(", ")}. Arrow keys choose.`
      : "";
  }

  hide() {
    this.words = null;
    this.list.hidden = true;
    byId("suggestion-count").textContent = "";
    this.mark();
    this.tellSoon();
  }

  choose(index) {
    const count = this.words.length;
    this.chosen = (index + count) % count;
    [...this.list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === this.chosen)));
    this.box.setAttribute("aria-activedescendant", `suggestion-${this.chosen}`);
  }

  pressed(event, onSubmit) {
    if (event.isComposing) return;
    const open = !this.list.hidden && this.words?.length > 0;
    if (open && event.key === "ArrowDown") this.choose(this.chosen + 1);
    else if (open && event.key === "ArrowUp") this.choose(this.chosen < 0 ? -1 : this.chosen - 1);
    else if (open && event.key === "Escape") this.list.hidden = true;
    else if (open && event.key === "Enter" && this.chosen >= 0) this.accept(this.words[this.chosen]);
    else if (event.key === "Enter") onSubmit();
    else return;
    event.preventDefault();
  }

  /** Replaces the word at the caret. */
  accept(word) {
    const {start, end} = this.current();
    this.put(word, start, end);
  }

  insert(word) {
    const caret = this.box.selectionEnd;
    const glued = caret > 0 && !/\s$/.test(this.box.value.slice(0, caret));
    this.put(glued ? ` ${word}` : word, caret, caret);
  }

  put(word, start, end) {
    const after = this.box.value.slice(end);
    this.box.setRangeText(/^\s/.test(after) ? word : `${word} `, start, end, "end");
    this.box.focus();
    this.typed();
  }

  replaceAll(word, known) {
    let text = this.box.value;
    for (const part of parts(text).reverse()) {
      if (part.word === word) text = text.slice(0, part.start) + known + text.slice(part.end);
    }
    this.take(text);
    this.tell();
  }
}
