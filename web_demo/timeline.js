/**
 * What the time line shows of the last half minute: sound levels, speech, segments.
 *
 * Decides what is remembered and when it is forgotten; leaves drawing to timeline_view.js. Pure:
 * time is the audio's own, in seconds. What the newest connection says about a stretch of audio
 * replaces what a lost one had said about it.
 */

/** @import { Final, Partial, ServerMessage } from "./protocol.js" */

/** @typedef {{readonly atS: number, readonly level: number}} Level sound up to `atS`, 0 to 1 */
/** @typedef {{readonly startS: number, readonly endS: number | null}} Speech null: it goes on */
/** @typedef {{readonly startS: number, readonly endS: number, readonly isFinal: boolean}} Segment */

export class Timeline {
  #spanS;
  #nowS = 0;
  /** Each in order of time. */
  #levels = /** @type {Level[]} */ ([]);
  #speech = /** @type {Speech[]} */ ([]);
  #segments = /** @type {Segment[]} */ ([]);

  /** @param {{spanS?: number}} [options] how far back it reaches */
  constructor({ spanS = 30 } = {}) {
    this.#spanS = spanS;
  }

  /**
   * @param {number} audioS where the chunk of that level ends
   * @param {number} level
   */
  addLevel(audioS, level) {
    const after = this.#levels.findLastIndex(({ atS }) => atS <= audioS) + 1;
    this.#levels.splice(after, 0, { atS: audioS, level });
    this.#nowS = Math.max(this.#nowS, audioS);
    this.#forget();
  }

  /** @param {ServerMessage} message */
  receive(message) {
    switch (message.type) {
      case "speech_started":
        this.#startSpeech(message.at);
        break;
      case "speech_stopped":
        this.#stopSpeech(message.at);
        break;
      case "partial":
      case "final":
        this.#renewSegment(message);
        break;
    }
    this.#forget();
  }

  /** Its connection was lost: the open segment is void, and its audio is heard again. */
  dropPartial() {
    if (this.#segments.at(-1)?.isFinal === false) {
      this.#segments.pop();
    }
  }

  get spanS() {
    return this.#spanS;
  }

  /** Where the newest audio ends. */
  get nowS() {
    return this.#nowS;
  }

  /** @returns {readonly Level[]} */
  get levels() {
    return this.#levels;
  }

  /** @returns {readonly Speech[]} */
  get speech() {
    return this.#speech;
  }

  /** @returns {readonly Segment[]} */
  get segments() {
    return this.#segments;
  }

  /** @param {number} atS */
  #startSpeech(atS) {
    const before = this.#speech.filter(({ startS }) => startS < atS);
    this.#speech = before.map(({ startS, endS }) => ({ startS, endS: Math.min(endS ?? atS, atS) }));
    this.#speech.push({ startS: atS, endS: null });
  }

  /** @param {number} atS */
  #stopSpeech(atS) {
    const open = this.#speech.at(-1);
    if (open?.endS === null) {
      this.#speech[this.#speech.length - 1] = { ...open, endS: Math.max(open.startS, atS) };
    }
  }

  /**
   * At most one segment is not final, the last. One that turns out to say nothing is not shown.
   * @param {Partial | Final} message
   */
  #renewSegment({ type, start, end, text }) {
    this.dropPartial();
    if (text !== "") {
      this.#segments.push({ startS: start, endS: end, isFinal: type === "final" });
    }
  }

  #forget() {
    const edgeS = this.#nowS - this.#spanS;
    dropLeading(this.#levels, ({ atS }) => atS < edgeS);
    dropLeading(this.#speech, ({ endS }) => endS !== null && endS < edgeS);
    dropLeading(this.#segments, ({ endS }) => endS < edgeS);
  }
}

/**
 * @template T
 * @param {T[]} items
 * @param {(item: T) => boolean} isOld
 */
function dropLeading(items, isOld) {
  while (items.length > 0 && isOld(items[0])) {
    items.shift();
  }
}
