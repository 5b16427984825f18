/**
 * Decides how sound becomes what the server takes: mono 16-bit PCM in chunks of one length.
 *
 * `PcmChunker` is the whole decision and runs anywhere. Where this file is loaded as an audio
 * worklet, it also registers the processor "pcm-worklet", which feeds a chunker on the audio thread
 * and posts its chunks. Opening and closing that processor is left to pcm_tap.js.
 *
 * @typedef {{pcm: Int16Array<ArrayBuffer>, peak: number}} Chunk
 *   Mono samples, and the largest of them without its sign, 0 to 1.
 */

export const PROCESSOR_NAME = "pcm-worklet";
/** What the processor answers to "flush" when nothing of what it heard is left with it. */
export const FLUSHED = "flushed";

const CHUNK_S = 0.04; // two hops of a telephone: short against any latency, long against a message
const FULL_SCALE = 32768; // what decoders divide by, so that 16-bit audio comes through unchanged

/** Mixes sound of any number of channels to mono and hands it on in chunks of one length. */
export class PcmChunker {
  #chunkSamples;
  #onChunk;
  #pcm;
  #numSamples = 0;
  #peak = 0;

  /**
   * @param {number} chunkSamples
   * @param {(chunk: Chunk) => void} onChunk  gets a new buffer each time, to keep or transfer
   */
  constructor(chunkSamples, onChunk) {
    this.#chunkSamples = chunkSamples;
    this.#onChunk = onChunk;
    this.#pcm = new Int16Array(chunkSamples);
  }

  /**
   * Takes samples of -1 to 1; what lies beyond is clipped, and what is no number is silence.
   * Allocates nothing but the next chunk's buffer: this runs 375 times a second on a thread that
   * must not wait for a garbage collector.
   * @param {readonly Float32Array[]} channels  of equal length
   */
  push(channels) {
    const numChannels = channels.length;
    const numSamples = numChannels === 0 ? 0 : channels[0].length;
    for (let sample = 0; sample < numSamples; sample += 1) {
      let sum = 0;
      for (let channel = 0; channel < numChannels; channel += 1) sum += channels[channel][sample];
      this.#append(sum / numChannels);
    }
  }

  /** @param {number} numSamples */
  pushSilence(numSamples) {
    for (let sample = 0; sample < numSamples; sample += 1) this.#append(0);
  }

  /** Hands on what is left, in a shorter chunk, if there is anything. */
  flush() {
    if (this.#numSamples > 0) this.#handOn(this.#pcm.slice(0, this.#numSamples));
  }

  /** @param {number} value */
  #append(value) {
    const rounded = Math.round(value * FULL_SCALE);
    // NaN is stored as 0; everything else has to be inside the range, or it would wrap around.
    this.#pcm[this.#numSamples] = Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, rounded));
    const size = Math.abs(this.#pcm[this.#numSamples]);
    if (size > this.#peak) this.#peak = size;
    this.#numSamples += 1;
    if (this.#numSamples === this.#chunkSamples) this.#handOn(this.#pcm);
  }

  /** @param {Int16Array<ArrayBuffer>} pcm */
  #handOn(pcm) {
    const peak = this.#peak / FULL_SCALE;
    this.#pcm = new Int16Array(this.#chunkSamples);
    this.#numSamples = 0;
    this.#peak = 0;
    this.#onChunk({ pcm, peak });
  }
}

/** What a worklet's global scope has, and a page has not. */
function register() {
  class PcmProcessor extends AudioWorkletProcessor {
    #chunker = new PcmChunker(Math.round(CHUNK_S * sampleRate), (chunk) =>
      this.port.postMessage(chunk, [chunk.pcm.buffer]),
    );
    #quantumSamples = 0; // of the sound heard last; nothing was heard yet
    #open = true;

    constructor() {
      super();
      this.port.onmessage = ({ data }) => {
        if (data === "close") {
          this.#open = false;
        } else if (data === "flush") {
          this.#chunker.flush();
          this.port.postMessage(FLUSHED);
        }
      };
    }

    /**
     * @param {Float32Array[][]} inputs
     * @returns {boolean}  false lets the node be collected
     */
    process([channels]) {
      if (channels.length > 0) {
        this.#quantumSamples = channels[0].length;
        this.#chunker.push(channels);
      } else {
        // Firefox shows the silence of a muted track as no channels at all: the clock goes on.
        this.#chunker.pushSilence(this.#quantumSamples);
      }
      return this.#open;
    }
  }
  registerProcessor(PROCESSOR_NAME, PcmProcessor);
}

if (typeof registerProcessor === "function") register();
