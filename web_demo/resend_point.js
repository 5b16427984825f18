/**
 * From which sample on a connection's audio would have to be sent again if it dropped now.
 *
 * Decides from what the server said alone, in samples of that connection's own audio. Never moves
 * back, and never past a word whose final has not come.
 *
 * An `ack` only says that audio was received; the detector may not have heard it yet. But the
 * server reads no further than 30 s ahead of what it has dealt with (docs/protocol.md, "Flow and
 * loss"), so whatever lies further behind the newest ack has been heard: where speech began in it,
 * that was said before.
 */

/** @import { ServerMessage } from "./protocol.js" */

const READ_AHEAD_S = 32; // 30 s, the message that went over it, and what is under way to the detector
const LONGEST_SEGMENT_S = 30; // max_segment_s at its largest: then the speech is cut
const END_TOLERANCE_S = 0.05; // a final's end and its speech_stopped may differ by rounding

export class ResendPoint {
  #sampleRate;
  #sample = 0;
  #isSpeaking = false;
  #speechEndS = 0; // of the newest speech that has ended
  #finalEndS = 0;

  /** @param {{sampleRate: number}} options */
  constructor({ sampleRate }) {
    this.#sampleRate = sampleRate;
  }

  get sample() {
    return this.#sample;
  }

  /** @param {ServerMessage} message */
  receive(message) {
    switch (message.type) {
      case "speech_started":
        this.#isSpeaking = true;
        break;
      case "speech_stopped":
        this.#isSpeaking = false;
        this.#speechEndS = message.at;
        break;
      case "final":
        this.#finalEndS = message.end;
        this.#advance(Math.round(message.end * this.#sampleRate));
        break;
      case "ack":
        this.#advance(message.samples_received - this.#keptBehindAckS * this.#sampleRate);
        break;
    }
  }

  /**
   * Where speech awaits a final, a whole segment more is kept. Speech in which no words are found
   * never gets one, so that it cannot be awaited for ever.
   */
  get #keptBehindAckS() {
    const isSettled = this.#finalEndS >= this.#speechEndS - END_TOLERANCE_S;
    const awaitsFinal = this.#isSpeaking || !isSettled;
    return awaitsFinal ? READ_AHEAD_S + LONGEST_SEGMENT_S : READ_AHEAD_S;
  }

  /** @param {number} sample */
  #advance(sample) {
    this.#sample = Math.max(this.#sample, sample);
  }
}
