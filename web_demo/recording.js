/**
 * An audio file in place of the microphone, with the same surface.
 *
 * Decides when a recording is over, and that its caller is told so once. How it is heard aloud or
 * handed on quickly is left to recording_aloud.js and recording_quick.js, sending to the caller.
 *
 * @typedef {(error: Error | null) => void} OnEnd
 *
 * @typedef {object} Player  one way of handing a recording on
 * @property {number} sampleRate
 * @property {number} durationS
 * @property {boolean} muted
 * @property {(onEnd: OnEnd) => Promise<void>} start
 * @property {() => Promise<void>} shut
 */

import { AloudPlayer } from "./recording_aloud.js";
import { empty } from "./recording_error.js";
import { QuickPlayer } from "./recording_quick.js";

/** @import { Chunk } from "./pcm_tap.js" */

export { RecordingError } from "./recording_error.js";

/** One recording, handed on once, from its beginning to its end. */
export class Recording {
  #label;
  #player;
  #onEnd;
  /** @type {Promise<void> | null} */
  #closed = null;

  /**
   * Opens a recording, which begins at start(). Throws RecordingError. Where it is to be played
   * aloud, call this within a click or a drop, or the browser may not let the page play sound.
   * @param {object} options
   * @param {Blob | string} options.source  a file, or a URL of the page's own host
   * @param {boolean} options.aloud  whether it is played in real time; else it is handed on quickly
   * @param {(chunk: Chunk) => void} options.onChunk
   * @param {OnEnd} [options.onEnd]  called once, after the last chunk, if it ends by itself: with
   *   null at its end, else with what went wrong
   * @param {() => Promise<void>} [options.room]  waited for before each chunk that is not aloud
   * @param {typeof globalThis} [browser]
   * @returns {Promise<Recording>}
   */
  static async open(
    { source, aloud, onChunk, onEnd = () => {}, room = async () => {} },
    browser = globalThis,
  ) {
    const label = nameOf(source);
    if (typeof source !== "string" && source.size === 0) throw empty(label);
    const player = aloud
      ? await AloudPlayer.open(source, label, onChunk, browser)
      : await QuickPlayer.open(source, label, onChunk, room, browser);
    return new Recording(label, player, onEnd);
  }

  /**
   * @param {string} label
   * @param {Player} player
   * @param {OnEnd} onEnd
   */
  constructor(label, player, onEnd) {
    this.#label = label;
    this.#player = player;
    this.#onEnd = onEnd;
  }

  get sampleRate() {
    return this.#player.sampleRate;
  }

  get label() {
    return this.#label;
  }

  /** Infinity where the file does not say. */
  get durationS() {
    return this.#player.durationS;
  }

  /** Whether the loudspeakers are silent; the sound is handed on all the same. */
  get muted() {
    return this.#player.muted;
  }

  set muted(muted) {
    this.#player.muted = muted;
  }

  /** Begins. Throws RecordingError, and is closed, where the browser does not play. */
  async start() {
    try {
      await this.#player.start((error) => this.#end(error));
    } catch (error) {
      if (this.#closed) return; // by the caller, or its end was told
      await this.close();
      throw error;
    }
  }

  /**
   * Hands on what was heard up to now and ends.
   * @returns {Promise<void>}
   */
  close() {
    this.#closed ??= this.#player.shut();
    return this.#closed;
  }

  /** @param {Error | null} error */
  async #end(error) {
    if (this.#closed) return;
    await this.close();
    this.#onEnd(error);
  }
}

/** @param {Blob | string} source */
function nameOf(source) {
  if (typeof source === "string") return source.replace(/[?#].*$/, "").replace(/^.*\//, "");
  return "name" in source ? String(source.name) : "The recording";
}
