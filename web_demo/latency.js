/**
 * How long after the end of speech a final arrives, and how old what is shown has become.
 *
 * Pure: the clock's readings are arguments, in seconds; positions are seconds of session audio.
 * Finals are timed as clients/latency.py times them.
 */

/** @import { ServerMessage } from "./protocol.js" */

const END_TOLERANCE_S = 0.05; // a final's end and its speech_stopped may differ by rounding

// No message is about older audio: a page holds at most two minutes of it unacknowledged, and the
// server half a minute unprocessed and half a minute in an open segment.
const REMEMBERED_S = 300;

/**
 * Remembers when each stretch of audio was sent, for as long as a message may still be about it.
 *
 * A final is timed from the sending of the last speech in it. One that was cut out of longer
 * speech, or flushed in its middle, has no such end and is not timed.
 */
export class LatencyMeter {
  /** @type {number[]} */
  #latenciesS = [];
  /** In order of both: the audio up to `audioS` had been sent at the reading `at`. */
  #sent = /** @type {{audioS: number, at: number}[]} */ ([]);
  /** Ends of speech whose final is still to come. */
  #stops = /** @type {{audioS: number, sentAt: number}[]} */ ([]);
  // Readings at which audio was sent: where the speech going on began, where the partial of the
  // open segment ends, where the last final ends.
  #speechSentAt = /** @type {number | null} */ (null);
  #partialSentAt = /** @type {number | null} */ (null);
  #finalSentAt = -Infinity;

  /**
   * The audio up to `audioS` has been handed to the connection.
   *
   * Audio that is sent again after a lost connection counts from its first sending: that is what
   * its speaker has waited for.
   * @param {number} audioS
   * @param {number} now
   */
  sent(audioS, now) {
    if (audioS <= (this.#sent.at(-1)?.audioS ?? -Infinity)) {
      return;
    }
    this.#sent.push({ audioS, at: now });
    this.#forgetBefore(audioS - REMEMBERED_S);
    if (this.#stops[0]?.audioS < audioS - REMEMBERED_S) {
      this.#stops.shift();
    }
  }

  /**
   * A message has arrived.
   * @param {ServerMessage} message
   * @param {number} now
   */
  received(message, now) {
    switch (message.type) {
      case "speech_started":
        this.#speechSentAt = this.#whenSent(message.at, now);
        break;
      case "speech_stopped":
        this.#speechSentAt = null;
        this.#stops.push({ audioS: message.at, sentAt: this.#whenSent(message.at, now) });
        break;
      case "partial":
        this.#partialSentAt = this.#whenSent(message.end, now);
        break;
      case "final":
        this.#time(message, now);
        this.#partialSentAt = null;
        this.#finalSentAt = this.#whenSent(message.end, now);
        this.#forgetBefore(message.end);
        break;
      case "done":
        this.#speechSentAt = null;
        this.#partialSentAt = null;
        break;
    }
  }

  /** Its connection was lost: the newest partial is void, and its audio is heard again. */
  dropPartial() {
    this.#partialSentAt = null;
  }

  /** One for each final timed so far. @returns {readonly number[]} */
  get latenciesS() {
    return this.#latenciesS;
  }

  /** Of the last final timed; null before the first. @returns {number | null} */
  get lastS() {
    return this.#latenciesS.at(-1) ?? null;
  }

  /** Over the finals timed so far; null before the first. @returns {number | null} */
  get medianS() {
    if (this.#latenciesS.length === 0) {
      return null;
    }
    const sorted = [...this.#latenciesS].sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  /**
   * How long ago the last audio that the text shows was sent, while more text is to come; null
   * in silence. Before any text of an utterance it is the beginning of its speech that counts.
   *
   * Speech that has ended without a partial is not waited for: it may have had no words.
   * @param {number} now
   * @returns {number | null}
   */
  partialAge(now) {
    if (this.#partialSentAt !== null) {
      return now - this.#partialSentAt;
    }
    if (this.#speechSentAt !== null) {
      return now - Math.max(this.#speechSentAt, this.#finalSentAt);
    }
    return null;
  }

  /**
   * @param {{start: number, end: number}} final
   * @param {number} now
   */
  #time({ start, end }, now) {
    const limitS = end + END_TOLERANCE_S;
    const stop = this.#stops.find(({ audioS }) => start < audioS && audioS <= limitS);
    if (stop !== undefined) {
      this.#latenciesS.push(now - stop.sentAt);
    }
    // Finals come in order: what this one covers, and what lies before it, no other will.
    this.#stops = this.#stops.filter((one) => one !== stop && one.audioS > end);
  }

  /**
   * @param {number} audioS
   * @param {number} now where nothing was sent at all
   */
  #whenSent(audioS, now) {
    const covering = this.#sent.findLastIndex((chunk) => chunk.audioS < audioS) + 1;
    return (this.#sent[covering] ?? this.#sent.at(-1))?.at ?? now;
  }

  /** @param {number} audioS */
  #forgetBefore(audioS) {
    while (this.#sent.length > 1 && this.#sent[0].audioS < audioS) {
      this.#sent.shift();
    }
  }
}
