/** The words that a model knows: finds a prompt's unknown words and suggestions for them. */

// How the model's tokenizer splits a text: runs of letters, single digits, runs of anything else.
const WORD = /\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;
const LETTERS = /^\p{L}+$/u;

/** The words of a text: [{word (lower case), start, end}]. */
export function parts(text) {
  return [...text.matchAll(WORD)].map((match) => ({
    word: match[0].toLowerCase(),
    start: match.index,
    end: match.index + match[0].length,
  }));
}

/** Edits (insert, delete, replace, swap neighbours) that turn one word into another. */
export function distance(a, b) {
  let before = [];
  let last = Array.from({length: b.length + 1}, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] !== b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j], before[j - 2] + 1);
    }
    [before, last] = [last, row];
  }
  return last[b.length];
}

export class Vocabulary {
  /** words: all words that the model knows; empty if it takes any text. */
  constructor(words) {
    this.words = [...words].sort();
    this.known = new Set(words);
    this.open = words.length === 0;
  }

  /** Longer known words that start with this one. */
  completions(word) {
    return this.words.filter((known) => known.length > word.length && known.startsWith(word));
  }

  /** At most `count` known words of similar spelling, the most likely first. */
  near(word, count = 3) {
    if (!LETTERS.test(word) || word.length < 2) return [];
    const most = Math.min(3, Math.floor((word.length + 1) / 3));
    return this.words
      .filter((known) => LETTERS.test(known))
      .map((known) => ({known, edits: distance(word, known)}))
      .filter(({known, edits}) => edits <= most && edits < known.length - 1)
      .sort((a, b) => a.edits - b.edits)
      .slice(0, count)
      .map(({known}) => known);
  }

  /** The unknown words of a text. */
  unknown(text) {
    return this.open ? [] : parts(text).filter(({word}) => !this.known.has(word));
  }
}
