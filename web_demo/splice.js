/**
 * The messages of successive connections, spliced into one session.
 *
 * Decides which of a connection's messages the page sees and with which times and numbers, so that
 * it sees one session: positions on the page's own audio clock, segments and `seq` counted through.
 * Nothing is told twice: one `ready`, and of speech that is sent again neither its beginning nor
 * its end if they were told before.
 */

import { ResendPoint } from "./resend_point.js";

/** @import { ServerMessage } from "./protocol.js" */

/**
 * Where a stretch of session begins in a longer one.
 * @typedef {{atS: number, numSegments: number, numSamples?: number}} Origin
 */

/**
 * The same message in a session that began earlier.
 * @param {ServerMessage} message
 * @param {Origin} origin of the message's own session
 * @returns {ServerMessage}
 */
export function shifted(message, { atS, numSegments, numSamples = 0 }) {
  switch (message.type) {
    case "speech_started":
    case "speech_stopped":
    case "flushed":
      return { ...message, at: message.at + atS };
    case "ack":
      return { ...message, samples_received: message.samples_received + numSamples };
    case "partial":
      return {
        ...message,
        segment: message.segment + numSegments,
        start: message.start + atS,
        end: message.end + atS,
        stable_end: message.stable_end + atS,
      };
    case "final": {
      const final = {
        ...message,
        segment: message.segment + numSegments,
        start: message.start + atS,
        end: message.end + atS,
      };
      const words = message.words?.map((word) => ({
        ...word,
        start: word.start + atS,
        end: word.end + atS,
      }));
      return words === undefined ? final : { ...final, words };
    }
    case "done":
      return {
        ...message,
        audio_s: message.audio_s + atS,
        segments: message.segments + numSegments,
      };
    default:
      return message;
  }
}

export class Splice {
  #sampleRate;
  /** @type {Required<Origin>} */
  #origin = { atS: 0, numSegments: 0, numSamples: 0 };
  #resendPoint;
  #seq = 0;
  #numFinals = 0;
  #isReady = false;
  #isSpeaking = false; // as the page was told
  #speechAtS = 0; // where the newest speech that it was told of began or ended

  /** @param {{sampleRate: number}} options */
  constructor({ sampleRate }) {
    this.#sampleRate = sampleRate;
    this.#resendPoint = new ResendPoint({ sampleRate });
  }

  /** Audio before this sample of the page's clock is never needed again. */
  get resendSample() {
    return this.#origin.numSamples + this.#resendPoint.sample;
  }

  /**
   * Another connection, whose audio begins at this sample of the page's clock.
   * @param {number} firstSample
   */
  begin(firstSample) {
    this.#origin = {
      atS: firstSample / this.#sampleRate,
      numSegments: this.#numFinals,
      numSamples: firstSample,
    };
    this.#resendPoint = new ResendPoint({ sampleRate: this.#sampleRate });
  }

  /**
   * A message of the newest connection, as the page is to see it; null where it has seen it.
   * @param {ServerMessage} message
   * @returns {ServerMessage | null}
   */
  receive(message) {
    this.#resendPoint.receive(message);
    const here = shifted(message, this.#origin);
    if (this.#isKnown(here)) {
      return null;
    }
    this.#seq += 1;
    return { ...here, seq: this.#seq };
  }

  /**
   * Also takes note of what the page comes to know.
   * @param {ServerMessage} message
   */
  #isKnown(message) {
    switch (message.type) {
      case "ready": {
        const wasReady = this.#isReady;
        this.#isReady = true;
        return wasReady;
      }
      case "speech_started":
      case "speech_stopped": {
        const isStart = message.type === "speech_started";
        if (message.at < this.#speechAtS || isStart === this.#isSpeaking) {
          return true;
        }
        this.#isSpeaking = isStart;
        this.#speechAtS = message.at;
        return false;
      }
      case "final":
        this.#numFinals += 1;
        return false;
      default:
        return false;
    }
  }
}
