/**
 * Audio to the server and captions back, whatever the network does in between.
 *
 *     const stream = new CaptionStream({ url, sampleRate, onMessage, onState });
 *     stream.open();
 *     stream.send(pcm);          // as often as there is audio
 *     await stream.stop();       // every word has arrived
 *
 * A shell: holds the websocket and the timer, and performs in order what caption_session.js
 * decides.
 */

import { CaptionSession } from "./caption_session.js";
import { subprotocols } from "./protocol.js";
import { refusal } from "./server_info.js";

/** @import { Effect } from "./caption_session.js" */
/** @import { ServerMessage, Start } from "./protocol.js" */
/** @import { Refusal } from "./server_info.js" */
/** @typedef {import("./stream_state.js").StreamState} StreamState */

/** A stream ended before every word had arrived; the message says why. */
export class StreamError extends Error {
  /** @param {string} sentence */
  constructor(sentence) {
    super(sentence);
    this.name = "StreamError";
  }
}

export class CaptionStream {
  #url;
  #key;
  #onMessage;
  #onState;
  #probe;
  #WebSocket;
  #now;
  #setTimeout;
  #clearTimeout;
  #reportError;
  #session;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Effect[]} */
  #effects = [];
  #isPerforming = false;
  /** @type {ReturnType<typeof globalThis.setTimeout> | undefined} */
  #timer;
  /** @type {(() => void)[]} */
  #waitingForRoom = [];
  /** @type {Promise<void>} */
  #ended;
  /** @type {(failure: string | null) => void} */
  #settle = () => {};

  /**
   * @param {object} options
   * @param {string} options.url of the websocket
   * @param {string} [options.key] API key, where the server wants one
   * @param {Partial<Start>} [options.start] what is asked for; `sample_rate` is set here
   * @param {number} options.sampleRate of the audio that will be sent, 16-bit mono
   * @param {(message: ServerMessage) => void} options.onMessage with the times and numbers of one
   *   session, however many connections it takes; not called for an error that ends one
   * @param {(state: StreamState) => void} [options.onState]
   * @param {(key: string) => Promise<Refusal>} [options.probe] why a connection was refused
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   * @param {() => number} [options.now] ms
   * @param {(callback: () => void, delayMs: number) => any} [options.setTimeout]
   * @param {(timer: any) => void} [options.clearTimeout]
   * @param {() => number} [options.random]
   * @param {(error: unknown) => void} [options.reportError] of a callback that throws, which must
   *   not stop the stream
   */
  constructor({
    url,
    key = "",
    start = {},
    sampleRate,
    onMessage,
    onState = () => {},
    probe = (shown) => refusal(shown),
    WebSocket = globalThis.WebSocket,
    now = () => performance.now(),
    setTimeout = (callback, delayMs) => globalThis.setTimeout(callback, delayMs),
    clearTimeout = (timer) => globalThis.clearTimeout(timer),
    random = Math.random,
    reportError = (error) => globalThis.reportError(error),
  }) {
    this.#url = url;
    this.#key = key;
    this.#onMessage = onMessage;
    this.#onState = onState;
    this.#probe = probe;
    this.#WebSocket = WebSocket;
    this.#now = now;
    this.#setTimeout = setTimeout;
    this.#clearTimeout = clearTimeout;
    this.#reportError = reportError;
    this.#session = new CaptionSession({ start, sampleRate, random });
    this.#ended = new Promise((resolve, reject) => {
      this.#settle = (failure) => (failure === null ? resolve() : reject(new StreamError(failure)));
    });
    this.#ended.catch(() => {}); // who never calls stop() was told by onState
  }

  /** Connect. What is sent before is kept. */
  open() {
    this.#perform(this.#session.open(this.#now()));
  }

  /**
   * Audio that follows all other.
   * @param {Int16Array} pcm not to be changed any more
   */
  send(pcm) {
    this.#perform(this.#session.append(pcm, this.#now()));
  }

  /**
   * Waits until audio may be sent that comes faster than in real time. After the end of the stream
   * nothing is kept, and there is always room.
   * @returns {Promise<void>}
   */
  room() {
    return this.#session.hasRoom
      ? Promise.resolve()
      : new Promise((resolve) => this.#waitingForRoom.push(resolve));
  }

  /**
   * No more audio. Resolves once every word was delivered.
   * @returns {Promise<void>} rejects with a StreamError where the last words are lost
   */
  stop() {
    this.#perform(this.#session.stop(this.#now()));
    return this.#ended;
  }

  /** End at once; what was not delivered is lost. */
  abort() {
    this.#perform(this.#session.abort());
  }

  /**
   * Performs effects, those of calls from within callbacks after the present ones; then sends what
   * can be sent.
   * @param {Effect[]} effects
   */
  #perform(effects) {
    this.#effects.push(...effects);
    if (this.#isPerforming) {
      return;
    }
    this.#isPerforming = true;
    for (let effect = this.#effects.shift(); effect; effect = this.#effects.shift()) {
      this.#performOne(effect);
    }
    this.#isPerforming = false;
    this.#pump();
    this.#schedule();
    if (this.#session.hasRoom) {
      for (const resolve of this.#waitingForRoom.splice(0)) {
        resolve();
      }
    }
  }

  /** @param {Effect} effect */
  #performOne(effect) {
    switch (effect.kind) {
      case "connect":
        this.#connect();
        break;
      case "disconnect":
        this.#disconnect(effect.code);
        break;
      case "probe":
        void this.#ask();
        break;
      case "message":
        this.#call(this.#onMessage, effect.message);
        break;
      case "state":
        this.#call(this.#onState, effect.state);
        break;
      case "end":
        this.#settle(effect.failure);
        break;
    }
  }

  #connect() {
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.#WebSocket(this.#url, subprotocols(this.#key));
    } catch (error) {
      // A key or an address that no browser can use; the next attempt would fare no better.
      this.#effects.push(...this.#session.abort(`${/** @type {Error} */ (error).message}.`));
      return;
    }
    socket.binaryType = "arraybuffer";
    /** Events of a socket that was given up mean nothing any more. @param {() => Effect[]} event */
    const happen = (event) => {
      if (socket === this.#socket) {
        this.#perform(event());
      }
    };
    socket.onopen = () => happen(() => this.#session.opened(this.#now()));
    socket.onmessage = ({ data }) => happen(() => this.#session.receive(data, this.#now()));
    socket.onclose = ({ code }) => happen(() => this.#session.closed(code, this.#now()));
    this.#socket = socket;
  }

  /** @param {number} code */
  #disconnect(code) {
    this.#socket?.close(code);
    this.#socket = null;
  }

  async #ask() {
    const why = await this.#probe(this.#key);
    this.#perform(this.#session.refused(why, this.#now()));
  }

  #pump() {
    const socket = this.#socket;
    while (socket !== null) {
      const frame = this.#session.nextFrame(socket.bufferedAmount, this.#now());
      if (frame === null) {
        return;
      }
      // A websocket takes no shared memory; what the page captures is none.
      socket.send(/** @type {string | Int16Array<ArrayBuffer>} */ (frame));
    }
  }

  #schedule() {
    this.#clearTimeout(this.#timer);
    const { wakeAt } = this.#session;
    if (wakeAt < Infinity) {
      const tick = () => this.#perform(this.#session.tick(this.#now()));
      this.#timer = this.#setTimeout(tick, Math.max(0, wakeAt - this.#now()));
    }
  }

  /**
   * @template T
   * @param {(value: T) => void} callback
   * @param {T} value
   */
  #call(callback, value) {
    try {
      callback(value);
    } catch (error) {
      this.#reportError(error);
    }
  }
}
