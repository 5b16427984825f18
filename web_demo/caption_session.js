/**
 * One session as the page sees it, over as many connections as it takes.
 *
 * Decides when to connect, what is sent again after a connection has ended, what the page is told,
 * and when to give up. Pure: each method takes what happened and gives the effects that
 * caption_stream.js performs in order; clock readings, in milliseconds, are arguments.
 *
 *     idle ─▶ connected ◀──────▶ waiting        for the next attempt; from anywhere ─▶ ended
 *                 └───▶ probing ───▲            asking why an attempt failed
 *
 * This server does not resume sessions: each connection begins one of its own, is sent the audio
 * from the splice's resend point on, and its messages are spliced onto those of the others.
 */

import { Backlog } from "./backlog.js";
import { Backoff } from "./backoff.js";
import { CaptionConnection } from "./caption_connection.js";
import { decode, encode, ProtocolError } from "./protocol.js";
import { Splice } from "./splice.js";
import { atEnd, FAILURE, goingOn, TROUBLE, TROUBLE_OF_ERROR } from "./stream_state.js";

/** @import { ErrorMessage, ServerMessage, Start } from "./protocol.js" */
/** @import { Refusal } from "./server_info.js" */
/** @import { StreamState } from "./stream_state.js" */

/**
 * @typedef {{kind: "connect"}
 *   | {kind: "disconnect", code: number}
 *   | {kind: "probe"}
 *   | {kind: "message", message: ServerMessage}
 *   | {kind: "state", state: StreamState}
 *   | {kind: "end", failure: string | null}} Effect
 */

const PROBE_WITHIN_MS = 10_000;
const STOP_WITHIN_MS = 15_000; // who pressed Stop does not wait longer for a server to come back
const MAX_FAILURES = 3; // the same speech may be what the engine cannot decode
const ROOM_S = 2; // of unsent audio: more waits for nothing
const ROOM = 0.75; // of the capacity: more than ResendPoint ever holds back, so that room comes

const CLOSE_NORMAL = 1000;
const CLOSE_UNREADABLE = 4000; // of those that a page may use
const ENDING_CODES = new Set([1001, 1012]);
const REFUSING_CODES = new Set([1002, 1003, 1007, 1008, 1009, 1010]); // another try fares no better

export class CaptionSession {
  #start;
  #startFrame = "";
  #sampleRate;
  #backlog;
  #splice;
  #backoff;
  /** @type {"idle" | "connected" | "probing" | "waiting" | "ended"} */
  #phase = "idle";
  /** @type {CaptionConnection | null} not null exactly while connected */
  #connection = null;
  #nextAt = Infinity; // the next attempt, or the end of probing
  #stopBy = Infinity; // a reading by which a server must be there again
  #isStopping = false;
  #wasReady = false;
  #hasFinal = false; // since the newest connection
  #numFailures = 0;
  #trouble = "";

  /**
   * @param {object} options
   * @param {Partial<Start>} options.start
   * @param {number} options.sampleRate
   * @param {() => number} [options.random]
   */
  constructor({ start, sampleRate, random }) {
    this.#start = { ...start, sample_rate: sampleRate };
    this.#sampleRate = sampleRate;
    this.#backlog = new Backlog({ sampleRate });
    this.#splice = new Splice({ sampleRate });
    this.#backoff = new Backoff({ random });
  }

  /** When `tick` is due; Infinity where nothing is awaited. */
  get wakeAt() {
    const stopBy = this.#connection?.isReady ? Infinity : this.#stopBy;
    return Math.min(this.#connection?.wakeAt ?? Infinity, this.#nextAt, stopBy);
  }

  /** Whether audio may be appended faster than in real time. Always where none is kept any more. */
  get hasRoom() {
    const { unsentS, heldS, capacityS } = this.#backlog;
    return this.#phase === "ended" || (unsentS < ROOM_S && heldS < ROOM * capacityS);
  }

  /** @param {number} now @returns {Effect[]} */
  open(now) {
    if (this.#phase !== "idle") {
      return [];
    }
    try {
      this.#startFrame = encode({ type: "start", ...this.#start });
    } catch (error) {
      return this.#end(`${sentenceOf(error)}.`);
    }
    return this.#connect(now);
  }

  /** @param {Int16Array} pcm @param {number} now @returns {Effect[]} */
  append(pcm, now) {
    if (this.#isStopping || this.#phase === "ended") {
      return [];
    }
    const lostS = Math.ceil(this.#backlog.lostS);
    this.#backlog.append(pcm);
    if (Math.ceil(this.#backlog.lostS) === lostS) {
      return [];
    }
    // Behind a hole the connection's times would be wrong.
    return this.#connection?.isReady ? this.#drop(TROUBLE.slow, now) : [this.#state(now)];
  }

  /** No more audio. @param {number} now @returns {Effect[]} */
  stop(now) {
    if (this.#isStopping || this.#phase === "ended") {
      return [];
    }
    this.#isStopping = true;
    if (this.#phase === "idle") {
      return this.#end(null);
    }
    this.#limitStop(now);
    return [this.#state(now)];
  }

  /** At once, whatever that loses. @param {string} [failure] @returns {Effect[]} */
  abort(failure = FAILURE.aborted) {
    return this.#end(failure);
  }

  /** The websocket is open. @param {number} now @returns {Effect[]} */
  opened(now) {
    this.#connection?.opened(now);
    return [];
  }

  /** @param {number} bufferedBytes @param {number} now */
  nextFrame(bufferedBytes, now) {
    return this.#connection?.nextFrame(bufferedBytes, this.#isStopping, now) ?? null;
  }

  /** @param {unknown} frame @param {number} now @returns {Effect[]} */
  receive(frame, now) {
    if (this.#connection === null) {
      return []; // of a connection that was given up
    }
    let message;
    try {
      message = decode(frame);
    } catch (error) {
      return this.#end(FAILURE.undecodable(sentenceOf(error)), CLOSE_UNREADABLE);
    }
    if (message.type === "error" && message.fatal) {
      return this.#receiveFatal(message, now);
    }
    this.#connection.receive(message, now);
    /** @type {Effect[]} */
    const effects = message.type === "ready" ? this.#begin(now) : this.#goOn(message);
    const told = this.#splice.receive(message);
    this.#backlog.forgetBefore(this.#splice.resendSample);
    if (told !== null) {
      effects.push({ kind: "message", message: told });
    }
    return message.type === "done" ? [...effects, ...this.#end(null)] : effects;
  }

  /** The websocket has closed. @param {number} code @param {number} now @returns {Effect[]} */
  closed(code, now) {
    if (this.#connection === null) {
      return []; // given up already
    }
    if (!this.#connection.isOpened) {
      this.#connection = null;
      this.#phase = "probing";
      this.#nextAt = now + PROBE_WITHIN_MS;
      return [{ kind: "probe" }];
    }
    if (REFUSING_CODES.has(code)) {
      return this.#end(FAILURE.refused(`close code ${code}`));
    }
    return this.#drop(ENDING_CODES.has(code) ? TROUBLE.ending : TROUBLE.lost, now);
  }

  /** The answer to a probe. @param {Refusal} refusal @param {number} now @returns {Effect[]} */
  refused({ sentence, retry, retryAfterMs }, now) {
    if (this.#phase !== "probing") {
      return []; // too late
    }
    return retry ? this.#drop(sentence, now, retryAfterMs) : this.#end(sentence);
  }

  /** Time has passed. @param {number} now @returns {Effect[]} */
  tick(now) {
    if (this.#connection?.isDead(now)) {
      return this.#drop(TROUBLE.silent, now);
    }
    if (!this.#connection?.isReady && now >= this.#stopBy) {
      return this.#end(FAILURE.notBack(STOP_WITHIN_MS / 1000));
    }
    if (now < this.#nextAt) {
      return [];
    }
    return this.#phase === "probing" ? this.#drop(TROUBLE.unreachable, now) : this.#connect(now);
  }

  /** @param {number} now @returns {Effect[]} */
  #connect(now) {
    const startFrame = this.#startFrame;
    this.#connection = new CaptionConnection(
      { startFrame, backlog: this.#backlog, sampleRate: this.#sampleRate },
      now,
    );
    this.#phase = "connected";
    this.#nextAt = Infinity;
    return [{ kind: "connect" }, this.#state(now)];
  }

  /** The server takes audio. @param {number} now @returns {Effect[]} */
  #begin(now) {
    this.#splice.begin(this.#backlog.firstSample);
    this.#hasFinal = false;
    const state = this.#state(now);
    this.#wasReady = true;
    return [state];
  }

  /** The server deals with audio. @param {ServerMessage} message @returns {Effect[]} */
  #goOn({ type }) {
    this.#stopBy = Infinity;
    if (type === "ack" || type === "final") {
      this.#backoff.reset();
    }
    if (type === "final") {
      this.#hasFinal = true;
      this.#numFailures = 0;
    }
    return [];
  }

  /** @param {ErrorMessage} error @param {number} now @returns {Effect[]} */
  #receiveFatal({ code, message }, now) {
    const trouble = TROUBLE_OF_ERROR[code];
    if (code === "engine_failure" && !this.#hasFinal) {
      this.#numFailures += 1;
    }
    if (this.#numFailures >= MAX_FAILURES) {
      return this.#end(FAILURE.decoding);
    }
    if (trouble !== undefined) {
      return this.#drop(trouble, now);
    }
    const { unsupported, refused } = FAILURE;
    return this.#end(code === "unsupported" ? unsupported(message) : refused(message));
  }

  /**
   * There is no connection; wait, then try another.
   * @param {string} trouble @param {number} now @param {number} [minimumMs] @returns {Effect[]}
   */
  #drop(trouble, now, minimumMs = 0) {
    this.#connection = null;
    this.#backlog.rewind();
    this.#phase = "waiting";
    this.#trouble = trouble;
    this.#nextAt = now + this.#backoff.next(minimumMs);
    this.#limitStop(now);
    return [{ kind: "disconnect", code: CLOSE_NORMAL }, this.#state(now)];
  }

  /** @param {number} now */
  #limitStop(now) {
    const isAway = !this.#connection?.isReady;
    if (this.#isStopping && isAway && this.#stopBy === Infinity) {
      this.#stopBy = now + STOP_WITHIN_MS;
    }
  }

  /** @param {string | null} failure @param {number} [code] @returns {Effect[]} */
  #end(failure, code = CLOSE_NORMAL) {
    if (this.#phase === "ended") {
      return [];
    }
    this.#connection = null;
    this.#phase = "ended";
    this.#nextAt = Infinity;
    this.#stopBy = Infinity;
    const { heldS, lostS } = this.#backlog;
    return [
      { kind: "disconnect", code },
      { kind: "state", state: atEnd(failure, { heldS, lostS }) },
      { kind: "end", failure },
    ];
  }

  /** @param {number} now @returns {Effect} */
  #state(now) {
    const { heldS, lostS } = this.#backlog;
    const state = goingOn({
      isOpen: this.#connection?.isReady ?? false,
      isStopping: this.#isStopping,
      wasOpen: this.#wasReady,
      trouble: this.#trouble,
      retryInMs: this.#phase === "waiting" ? this.#nextAt - now : undefined,
      heldS,
      lostS,
    });
    return { kind: "state", state };
  }
}

/** The sentence of a ProtocolError; anything else is a fault of ours. @param {unknown} error */
function sentenceOf(error) {
  if (error instanceof ProtocolError) {
    return error.message;
  }
  throw error;
}
