/**
 * Shows a transcript: finals as paragraphs, the current hypothesis below them.
 *
 * Decides how text looks and when to scroll; what the text is comes from transcript.js. Nothing
 * that was shown moves: a final takes the place of its partial, and the view follows new text only
 * while its reader is at the end.
 */

import { byId, create } from "./dom.js";
import { clock } from "./wording.js";

/** @import { Final, Partial, Word } from "./protocol.js" */

const AT_END_PX = 48; // about a line: closer than this to the end counts as reading the newest
const UNSURE = 0.5; // words below this confidence are marked

export class TranscriptView {
  #scroller = byId("transcript", HTMLElement);
  #finals = byId("finals", HTMLElement);
  #partial = byId("partial", HTMLElement);
  #empty = byId("empty", HTMLElement);
  #newest = byId("newest", HTMLButtonElement);
  #time = /** @type {HTMLTimeElement} */ (this.#partial.querySelector("time"));
  #stable = /** @type {HTMLElement} */ (this.#partial.querySelector(".stable"));
  #tail = /** @type {HTMLElement} */ (this.#partial.querySelector(".tail"));

  constructor() {
    this.#newest.addEventListener("click", () => this.#scrollToEnd());
    this.#scroller.addEventListener("scroll", () => {
      if (this.#isAtEnd()) this.#newest.hidden = true;
    });
  }

  /** One in which no words were left is not shown. @param {Final} final */
  addFinal(final) {
    if (final.text === "") return;
    this.#keepingPlace(() => {
      this.#empty.hidden = true;
      this.#finals.append(paragraph(final));
    });
  }

  /** @param {Partial | null} partial nothing is being said where null */
  showPartial(partial) {
    if (partial === null && this.#partial.hidden) return;
    this.#keepingPlace(() => {
      this.#partial.hidden = partial === null;
      if (partial) this.#empty.hidden = true;
      setText(this.#time, partial ? clock(partial.start) : "");
      setText(this.#stable, partial?.stable_text ?? "");
      setText(this.#tail, partial?.text.slice(partial.stable_text.length) ?? "");
    });
  }

  /** @param {readonly Final[]} finals all that is to be shown, instead of what is */
  showFinals(finals) {
    this.#finals.replaceChildren(...finals.filter(({ text }) => text !== "").map(paragraph));
    this.showPartial(null);
    this.#empty.hidden = finals.length > 0;
    this.#scrollToEnd();
  }

  /** @param {() => void} change */
  #keepingPlace(change) {
    const followed = this.#isAtEnd();
    change();
    if (followed) this.#scrollToEnd();
    else this.#newest.hidden = false;
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < AT_END_PX;
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#newest.hidden = true;
  }
}

/** @param {Final} final */
function paragraph(final) {
  const p = document.createElement("p");
  p.dataset.segment = String(final.segment);
  p.dataset.start = String(final.start);
  p.dataset.end = String(final.end);
  const time = create("time", clock(final.start));
  time.dateTime = `PT${final.start.toFixed(2)}S`;
  const text = create("span", "", "text");
  text.append(...textNodes(final.text, final.words ?? []));
  p.append(time, text);
  return p;
}

/**
 * The text, its words as elements of their own. What lies between them is the text's own, since
 * not every language puts spaces there.
 *
 * @param {string} text
 * @param {readonly Word[]} words
 */
function textNodes(text, words) {
  /** @type {(string | HTMLElement)[]} */
  const nodes = [];
  let done = 0;
  for (const word of words) {
    const at = text.indexOf(word.word, done);
    if (at < 0) continue;
    const span = create("span", word.word, word.confidence < UNSURE ? "word unsure" : "word");
    const sure = Math.round(word.confidence * 100);
    span.title = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s, ${sure} % sure`;
    nodes.push(text.slice(done, at), span);
    done = at + word.word.length;
  }
  return [...nodes, text.slice(done)];
}

/**
 * Leaves the document alone where nothing changed.
 *
 * @param {HTMLElement} element
 * @param {string} text
 */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
