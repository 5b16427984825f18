/**
 * One listening, from Start to the last word: a source of audio, the stream that carries it, and
 * what is known of it.
 *
 * Decides the order in which things are opened and closed. The microphone or recording comes
 * first, so that its permission is asked before anything is sent; the stream ends last, when
 * every word has arrived. Shows nothing: app.js does.
 */

import { LatencyMeter } from "./latency.js";
import { Timeline } from "./timeline.js";

/** @import { ServerMessage } from "./protocol.js" */
/** @import { StreamState } from "./stream_state.js" */

/**
 * A microphone or a recording.
 *
 * @typedef {object} AudioSource
 * @property {number} sampleRate
 * @property {string} label
 * @property {boolean} muted
 * @property {() => Promise<void>} close delivers what is left, then ends
 * @property {() => Promise<void> | void} [start] begins to deliver, where opening did not
 */

/**
 * @typedef {object} SourceEvents
 * @property {(chunk: { pcm: Int16Array, peak: number }) => void} onChunk
 * @property {(error: Error | null) => void} onEnd by itself: null where it was played to its end
 * @property {() => Promise<void>} room waits until more audio can be held
 */

/**
 * @typedef {object} CarriedBy the part of CaptionStream that is used here
 * @property {() => void} open
 * @property {(pcm: Int16Array) => void} send
 * @property {() => Promise<void>} room
 * @property {() => Promise<void>} stop
 * @property {() => void} abort
 */

/**
 * @typedef {object} ListeningOptions
 * @property {(events: SourceEvents) => Promise<AudioSource>} openSource
 * @property {(options: {
 *   sampleRate: number,
 *   onMessage: (message: ServerMessage) => void,
 *   onState: (state: StreamState) => void,
 * }) => CarriedBy} openStream
 * @property {(message: ServerMessage) => void} onMessage
 * @property {(state: StreamState) => void} onState
 * @property {(error: Error | null) => void} onEnd everything is over; what went wrong, if anything
 * @property {() => number} [now] seconds, of a clock that never goes back
 */

export class Listening {
  #options;
  #now;
  /** @type {AudioSource | null} */
  #source = null;
  /** @type {CarriedBy | null} */
  #stream = null;
  #numSamples = 0;
  #peak = 0;
  /** @type {Promise<void> | null} */
  #ending = null;
  #ended = false;
  #meter = new LatencyMeter();
  #timeline = new Timeline();

  /** @param {ListeningOptions} options */
  constructor(options) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now() / 1000);
  }

  /** End of speech to final, and the partials' age. */
  get meter() {
    return this.#meter;
  }

  get timeline() {
    return this.#timeline;
  }

  /** How much audio there was so far, in seconds. */
  get audioS() {
    return this.#source ? this.#numSamples / this.#source.sampleRate : 0;
  }

  /** The loudest sample of the newest chunk, 0 to 1. */
  get peak() {
    return this.#peak;
  }

  /** Of the newest partial, in seconds; null while nobody speaks. */
  get partialAgeS() {
    return this.#meter.partialAge(this.#now());
  }

  get muted() {
    return this.#source?.muted ?? false;
  }

  set muted(muted) {
    if (this.#source) this.#source.muted = muted;
  }

  get label() {
    return this.#source?.label ?? "";
  }

  /** Rejects with what kept the source from being opened. */
  async start() {
    const source = await this.#options.openSource({
      onChunk: (chunk) => this.#receiveChunk(chunk),
      onEnd: (error) => this.stop(error),
      room: async () => this.#stream?.room(),
    });
    this.#source = source;
    if (this.#ending) return source.close(); // stopped while permission was being asked
    this.#stream = this.#options.openStream({
      sampleRate: source.sampleRate,
      onMessage: (message) => this.#receiveMessage(message),
      onState: (state) => this.#receiveState(state),
    });
    this.#stream.open();
    try {
      await source.start?.();
    } catch (error) {
      this.#ended = true; // who starts is told, and nobody twice
      this.#stream.abort();
      throw error;
    }
  }

  /** Whether no more audio comes and only the last words are awaited. */
  get isStopping() {
    return this.#ending !== null;
  }

  /**
   * No more audio; `onEnd` is called once every word has arrived or is known to be lost.
   *
   * @param {Error | null} [why] what ended the source
   */
  stop(why = null) {
    this.#ending ??= this.#end(why);
    return this.#ending;
  }

  /** @param {Error | null} why */
  async #end(why) {
    let error = why;
    try {
      await this.#source?.close();
      await this.#stream?.stop();
    } catch (lost) {
      error ??= /** @type {Error} */ (lost);
    }
    this.#peak = 0;
    if (this.#ended) return;
    this.#ended = true;
    this.#options.onEnd(error);
  }

  /** Do not wait for the last words. */
  giveUp() {
    this.#stream?.abort();
  }

  /** @param {{ pcm: Int16Array, peak: number }} chunk */
  #receiveChunk({ pcm, peak }) {
    if (!this.#source || !this.#stream) return;
    this.#numSamples += pcm.length;
    this.#peak = peak;
    this.#timeline.addLevel(this.audioS, peak);
    this.#meter.sent(this.audioS, this.#now());
    this.#stream.send(pcm);
  }

  /** @param {ServerMessage} message */
  #receiveMessage(message) {
    this.#meter.received(message, this.#now());
    this.#timeline.receive(message);
    this.#options.onMessage(message);
  }

  /** @param {StreamState} state */
  #receiveState(state) {
    if (state.phase === "reconnecting") {
      this.#meter.dropPartial();
      this.#timeline.dropPartial();
    }
    this.#options.onState(state);
    if (state.phase === "failed") this.stop(new Error(state.sentence));
  }
}
