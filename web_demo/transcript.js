/**
 * The transcript so far: every final, and the hypothesis of the segment that is still open.
 *
 * Decides only which partial is still of interest. Everything of one segment comes before
 * anything of the next, so there is never more than one.
 */

/** @import { Final, Partial, ServerMessage } from "./protocol.js" */

export class Transcript {
  /** @type {Final[]} */
  #finals = [];
  /** @type {Partial | null} */
  #partial = null;

  /** @param {ServerMessage} message */
  receive(message) {
    if (message.type === "partial") {
      this.#partial = message;
    } else if (message.type === "final") {
      this.#finals.push(message);
      this.#partial = null;
    }
  }

  /** In the order of what was said; a final never changes. @returns {readonly Final[]} */
  get finals() {
    return this.#finals;
  }

  /** The newest hypothesis; null where its final has come. @returns {Partial | null} */
  get partial() {
    return this.#partial;
  }

  /** A line for each final that says something, without what is not final yet. */
  get text() {
    const lines = this.#finals.map((final) => final.text.trim());
    return lines.filter((line) => line !== "").join("\n");
  }

  /** Its connection was lost: no final will follow from it. */
  dropPartial() {
    this.#partial = null;
  }

  /** Starts anew. Finals handed out before stay as they are. */
  clear() {
    this.#finals = [];
    this.#partial = null;
  }
}
