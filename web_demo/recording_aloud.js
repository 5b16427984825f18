/**
 * A recording in real time: the browser plays it, and what is heard is handed on.
 *
 * Decides where the recording begins and ends in what is heard. Sentences are left to
 * recording_error.js.
 */

import { keepRunning, openContext, openTap } from "./pcm_tap.js";
import {
  broken,
  insecure,
  RecordingError,
  silent,
  stopped,
  unclicked,
  unplayable,
} from "./recording_error.js";

/** @import { Chunk, PcmTap } from "./pcm_tap.js" */
/** @import { OnEnd, Player } from "./recording.js" */

/** @implements {Player} */
export class AloudPlayer {
  #label;
  #onChunk;
  #browser;
  #context;
  #media;
  #url;
  #source;
  #gain;
  /** @type {PcmTap | null} */
  #tap = null;
  #durationS = 0;
  #isPlaying = false;
  #isSilent = true;
  #stopCare = () => {};

  /**
   * @param {Blob | string} source
   * @param {string} label
   * @param {(chunk: Chunk) => void} onChunk
   * @param {typeof globalThis} browser
   */
  static async open(source, label, onChunk, browser) {
    if (!browser.isSecureContext) throw insecure(label);
    /** @type {AloudPlayer | undefined} */
    let player;
    try {
      player = new AloudPlayer(source, label, onChunk, browser);
      await player.#load();
      return player;
    } catch (error) {
      await player?.shut();
      throw error instanceof RecordingError ? error : broken(label, error);
    }
  }

  /**
   * @param {Blob | string} source
   * @param {string} label
   * @param {(chunk: Chunk) => void} onChunk
   * @param {typeof globalThis} browser
   */
  constructor(source, label, onChunk, browser) {
    this.#label = label;
    this.#onChunk = onChunk;
    this.#browser = browser;
    this.#context = openContext(browser);
    this.#context.resume().catch(() => {}); // the click that led here counts now; start() insists
    this.#media = new browser.Audio();
    this.#url = typeof source === "string" ? source : browser.URL.createObjectURL(source);
    this.#source = this.#context.createMediaElementSource(this.#media);
    this.#gain = this.#context.createGain();
    this.#source.connect(this.#gain);
    this.#gain.connect(this.#context.destination);
  }

  get sampleRate() {
    return this.#context.sampleRate;
  }

  get durationS() {
    return this.#durationS;
  }

  get muted() {
    return this.#gain.gain.value === 0;
  }

  set muted(muted) {
    this.#gain.gain.value = muted ? 0 : 1;
  }

  /** @param {OnEnd} onEnd */
  async start(onEnd) {
    const media = this.#media;
    media.addEventListener("ended", async () => {
      await this.#tap?.flush(); // a short recording may be heard in its last chunk only
      onEnd(this.#isSilent ? silent(this.#label) : null);
    });
    media.addEventListener("error", () => onEnd(unplayable(this.#label, media.error)));
    this.#stopCare = keepRunning(this.#context, () => onEnd(stopped(this.#label)), this.#browser);
    if (this.#tap) this.#source.connect(this.#tap.node);
    try {
      await media.play();
      this.#isPlaying = true;
    } catch (error) {
      const { name } = /** @type {Error} */ (error);
      throw name === "NotAllowedError" ? unclicked(this.#label) : unplayable(this.#label, error);
    }
  }

  async shut() {
    this.#stopCare();
    this.#media.pause();
    await this.#tap?.flush();
    this.#tap?.close();
    this.#source.disconnect();
    this.#media.removeAttribute("src");
    this.#media.load(); // or the decoder stays until the element is collected
    this.#browser.URL.revokeObjectURL(this.#url); // of a file; one of the server is left as it is
    await this.#context.close();
  }

  async #load() {
    await loaded(this.#media, this.#url, this.#label);
    this.#durationS = this.#media.duration;
    this.#tap = await openTap(this.#context, (chunk) => this.#hear(chunk), this.#browser);
  }

  /** @param {Chunk} chunk */
  #hear(chunk) {
    // Silence before the recording begins would put all times behind those of the recording. Sound
    // may come before the page is told that it plays, and is kept.
    if (!this.#isPlaying && chunk.peak === 0) return;
    this.#isSilent &&= chunk.peak === 0;
    this.#onChunk(chunk);
  }
}

/**
 * Resolves when the browser knows that it can play what is at `url`.
 * @param {HTMLAudioElement} media
 * @param {string} url
 * @param {string} label
 * @returns {Promise<void>}
 */
function loaded(media, url, label) {
  return new Promise((resolve, reject) => {
    media.addEventListener("loadedmetadata", () => resolve(), { once: true });
    media.addEventListener("error", () => reject(unplayable(label, media.error)), { once: true });
    media.preload = "auto";
    media.src = url;
  });
}
