/**
 * One connection of a caption session.
 *
 * Decides what is sent on it next, and whether the server still answers; leaves what its messages
 * mean, and what follows its end, to caption_session.js. Pure: clock readings, in milliseconds,
 * are arguments.
 */

import { encode } from "./protocol.js";

/** @import { Backlog } from "./backlog.js" */
/** @import { ServerMessage } from "./protocol.js" */

const ANSWER_WITHIN_MS = 10_000; // to connect, then to answer `start`; what our Python client allows
const SILENT_AFTER_MS = 30_000; // where an answer is owed: a network can vanish without a word
const UNANSWERED_S = 1.5; // acks come every second: with more than this unacknowledged, one is owed
const KEEPALIVE_MS = 20_000; // a third of the server's idle limit
const BUFFERED_S = 2; // of audio in the socket: enough to be busy, little enough to stop at once
const PUMP_MS = 50; // a socket does not say when it has room again

export class CaptionConnection {
  #startFrame;
  #backlog;
  #sampleRate;
  #firstSample = 0;
  #ackedSample = 0;
  #isOpened = false;
  #hasSentStart = false;
  #isReady = false;
  #hasSentStop = false;
  // Clock readings; Infinity where nothing is awaited.
  #deadAt;
  #keepaliveAt = Infinity;
  #pumpAt = Infinity;

  /**
   * @param {object} options
   * @param {string} options.startFrame
   * @param {Backlog} options.backlog what there is to send
   * @param {number} options.sampleRate
   * @param {number} now
   */
  constructor({ startFrame, backlog, sampleRate }, now) {
    this.#startFrame = startFrame;
    this.#backlog = backlog;
    this.#sampleRate = sampleRate;
    this.#deadAt = now + ANSWER_WITHIN_MS;
  }

  /** Whether the websocket is open. */
  get isOpened() {
    return this.#isOpened;
  }

  /** Whether the server takes audio. */
  get isReady() {
    return this.#isReady;
  }

  /** When `nextFrame` or `isDead` may answer otherwise although nothing has happened. */
  get wakeAt() {
    return Math.min(this.#deadAt, this.#keepaliveAt, this.#pumpAt);
  }

  /**
   * Whether an answer is overdue.
   * @param {number} now
   */
  isDead(now) {
    return now >= this.#deadAt;
  }

  /**
   * The websocket is open.
   * @param {number} now
   */
  opened(now) {
    this.#isOpened = true;
    this.#deadAt = now + ANSWER_WITHIN_MS;
  }

  /**
   * What to send now, or null. Audio waits for `ready`, and while the socket is full.
   * @param {number} bufferedBytes what the socket has not passed on yet
   * @param {boolean} isStopping whether no more audio will come
   * @param {number} now
   * @returns {string | Int16Array | null}
   */
  nextFrame(bufferedBytes, isStopping, now) {
    this.#pumpAt = Infinity;
    if (this.#isOpened && !this.#hasSentStart) {
      this.#hasSentStart = true;
      return this.#startFrame;
    }
    if (!this.#isReady || this.#hasSentStop) {
      return null;
    }
    const bufferedS = bufferedBytes / Int16Array.BYTES_PER_ELEMENT / this.#sampleRate;
    if (bufferedS >= BUFFERED_S && this.#backlog.unsentS > 0) {
      this.#pumpAt = now + PUMP_MS;
      this.#keepaliveAt = now + KEEPALIVE_MS; // what is on its way keeps the session alive
      return null;
    }
    const frame = this.#backlog.takeUnsent() ?? this.#nextText(isStopping, now);
    if (frame !== null) {
      this.#keepaliveAt = this.#hasSentStop ? Infinity : now + KEEPALIVE_MS;
      this.#deadAt = Math.min(this.#deadAt, this.#overdueAt(now));
    }
    return frame;
  }

  /**
   * Takes note that the server is there, and of what it has received.
   * @param {ServerMessage} message in this connection's own times
   * @param {number} now
   */
  receive(message, now) {
    if (message.type === "ready") {
      this.#isReady = true;
      this.#firstSample = this.#backlog.nextSample;
      this.#ackedSample = this.#firstSample;
      this.#keepaliveAt = now + KEEPALIVE_MS;
    } else if (message.type === "ack") {
      this.#ackedSample = this.#firstSample + message.samples_received;
    }
    if (this.#isReady) {
      this.#deadAt = this.#overdueAt(now);
    }
  }

  /**
   * When an answer that is owed from now on would be overdue.
   * @param {number} now
   */
  #overdueAt(now) {
    const unansweredS = (this.#backlog.nextSample - this.#ackedSample) / this.#sampleRate;
    const isOwed = this.#hasSentStop || unansweredS > UNANSWERED_S;
    return isOwed ? now + SILENT_AFTER_MS : Infinity;
  }

  /**
   * @param {boolean} isStopping
   * @param {number} now
   */
  #nextText(isStopping, now) {
    if (isStopping) {
      this.#hasSentStop = true;
      return encode({ type: "stop" });
    }
    return now >= this.#keepaliveAt ? encode({ type: "keepalive" }) : null;
  }
}
