/**
 * A recording without the time it takes to hear it: the browser decodes it as a whole, and chunks
 * are handed on as fast as there is room.
 *
 * An hour takes 230 MB a channel while it lasts, 4 bytes for each sample at 16 kHz, and while it is
 * decoded the same again at its own rate: 1.3 GB for stereo of 44.1 kHz. Browsers offer nothing
 * that decodes a file of any format piece by piece.
 */

import { PcmChunker } from "./pcm_worklet.js";
import { empty, silent, unplayable, unreadable } from "./recording_error.js";

/** @import { Chunk } from "./pcm_tap.js" */
/** @import { OnEnd, Player } from "./recording.js" */

const SAMPLE_RATE = 16_000; // of the models: anything more would be sent for nothing
const CHUNK_SAMPLES = 3_200; // 200 ms: nobody waits for it, and the protocol takes a second

/** @implements {Player} */
export class QuickPlayer {
  #channels;
  #durationS;
  #onChunk;
  #room;
  #browser;
  #shut = false;
  muted = false; // nothing is heard in any case

  /**
   * @param {Blob | string} source
   * @param {string} label
   * @param {(chunk: Chunk) => void} onChunk
   * @param {() => Promise<void>} room
   * @param {typeof globalThis} browser
   */
  static async open(source, label, onChunk, room, browser) {
    const bytes = await read(source, label, browser);
    if (bytes.byteLength === 0) throw empty(label);
    const decoder = new browser.OfflineAudioContext(1, 1, SAMPLE_RATE);
    const decoded = await decoder.decodeAudioData(bytes).catch((error) => {
      throw unplayable(label, error);
    });
    const channels = Array.from({ length: decoded.numberOfChannels }, (_, channel) =>
      decoded.getChannelData(channel),
    );
    if (decoded.length === 0) throw empty(label);
    if (!channels.some((channel) => channel.some((value) => value !== 0))) throw silent(label);
    return new QuickPlayer(channels, decoded.duration, onChunk, room, browser);
  }

  /**
   * @param {Float32Array[]} channels
   * @param {number} durationS
   * @param {(chunk: Chunk) => void} onChunk
   * @param {() => Promise<void>} room
   * @param {typeof globalThis} browser
   */
  constructor(channels, durationS, onChunk, room, browser) {
    this.#channels = channels;
    this.#durationS = durationS;
    this.#onChunk = onChunk;
    this.#room = room;
    this.#browser = browser;
  }

  get sampleRate() {
    return SAMPLE_RATE;
  }

  get durationS() {
    return this.#durationS;
  }

  /** @param {OnEnd} onEnd */
  async start(onEnd) {
    void this.#run().then(() => onEnd(null), onEnd);
  }

  async shut() {
    this.#shut = true;
    this.#channels = [];
  }

  async #run() {
    const chunker = new PcmChunker(CHUNK_SAMPLES, this.#onChunk);
    const numSamples = this.#channels[0].length;
    for (let at = 0; at < numSamples; at += CHUNK_SAMPLES) {
      await this.#room();
      await nextTask(this.#browser); // the page stays alive beside this loop
      if (this.#shut) return;
      chunker.push(this.#channels.map((it) => it.subarray(at, at + CHUNK_SAMPLES)));
    }
    chunker.flush();
  }
}

/**
 * The event loop's next turn. A timer would be kept waiting in a page in the background.
 * @param {Pick<typeof globalThis, "MessageChannel">} browser
 * @returns {Promise<void>}
 */
function nextTask(browser) {
  const { port1, port2 } = new browser.MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/**
 * @param {Blob | string} source
 * @param {string} label
 * @param {Pick<typeof globalThis, "fetch">} browser
 */
async function read(source, label, browser) {
  try {
    if (typeof source !== "string") return await source.arrayBuffer();
    const response = await browser.fetch(source);
    if (response.ok) return await response.arrayBuffer();
    throw new Error(`the server answered ${response.status}`);
  } catch (error) {
    throw unreadable(label, error);
  }
}
