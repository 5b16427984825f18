/**
 * Audio that waits to be sent, and audio that may have to be sent again.
 *
 * Decides what is sent next and what is dropped where more is held than may be; leaves when to
 * send, and from where on audio is still needed, to others. Positions are samples of the page's
 * own audio clock: 0 is the first sample ever appended.
 */

import { MAX_CHUNK_S } from "./protocol.js";

const CAPACITY_S = 120; // an outage that people sit out; 12 MB at 48 kHz

export class Backlog {
  #sampleRate;
  #capacityS;
  /** @type {Int16Array[]} */
  #chunks = [];
  #numSentChunks = 0; // of #chunks
  #firstSample = 0;
  #numHeld = 0;
  #numUnsent = 0;
  #numLost = 0;
  #numEvicted = 0; // dropped although still needed, but sent: lost where the connection is

  /** @param {{sampleRate: number, capacityS?: number}} options */
  constructor({ sampleRate, capacityS = CAPACITY_S }) {
    this.#sampleRate = sampleRate;
    this.#capacityS = capacityS;
  }

  get capacityS() {
    return this.#capacityS;
  }

  /** Audio that this connection has not been given. */
  get unsentS() {
    return this.#numUnsent / this.#sampleRate;
  }

  get heldS() {
    return this.#numHeld / this.#sampleRate;
  }

  get lostS() {
    return this.#numLost / this.#sampleRate;
  }

  /** Position of the oldest sample held; of the next one appended where nothing is. */
  get firstSample() {
    return this.#firstSample;
  }

  /** Position of the next sample to send. */
  get nextSample() {
    return this.#firstSample + this.#numHeld - this.#numUnsent;
  }

  /**
   * Audio that follows all other. Beyond the capacity the oldest is dropped. Where `lostS` grows
   * while a connection is being sent to, that connection has a hole in its audio and must end.
   * @param {Int16Array} pcm kept, not copied
   */
  append(pcm) {
    const most = MAX_CHUNK_S * this.#sampleRate;
    for (let start = 0; start < pcm.length; start += most) {
      this.#chunks.push(pcm.subarray(start, start + most));
    }
    this.#numHeld += pcm.length;
    this.#numUnsent += pcm.length;
    while (this.#numHeld > this.#capacityS * this.#sampleRate) {
      this.#evict();
    }
  }

  /**
   * The next chunk to send, of at most the second that a message takes.
   * @returns {Int16Array | null}
   */
  takeUnsent() {
    const chunk = this.#chunks[this.#numSentChunks];
    if (chunk === undefined) {
      return null;
    }
    this.#numSentChunks += 1;
    this.#numUnsent -= chunk.length;
    return chunk;
  }

  /**
   * Audio before this position will never be needed again. What was not sent is kept all the same.
   * @param {number} sample
   */
  forgetBefore(sample) {
    const limit = Math.min(sample, this.nextSample);
    this.#numEvicted = Math.max(0, Math.min(this.#numEvicted, this.#firstSample - limit));
    while (this.#firstSample < limit) {
      const { length } = this.#chunks[0];
      const numForgotten = Math.min(length, limit - this.#firstSample);
      if (numForgotten === length) {
        this.#chunks.shift();
        this.#numSentChunks -= 1;
      } else {
        this.#chunks[0] = this.#chunks[0].subarray(numForgotten);
      }
      this.#firstSample += numForgotten;
      this.#numHeld -= numForgotten;
    }
  }

  /**
   * The connection is gone: everything held counts as unsent again.
   * @returns {number} the position from which on it will be sent
   */
  rewind() {
    this.#numLost += this.#numEvicted;
    this.#numEvicted = 0;
    this.#numSentChunks = 0;
    this.#numUnsent = this.#numHeld;
    return this.#firstSample;
  }

  #evict() {
    const { length } = /** @type {Int16Array} */ (this.#chunks.shift());
    if (this.#numSentChunks > 0) {
      this.#numSentChunks -= 1;
      this.#numEvicted += length;
    } else {
      this.#numUnsent -= length;
      this.#numLost += length;
    }
    this.#firstSample += length;
    this.#numHeld -= length;
  }
}
