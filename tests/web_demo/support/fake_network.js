/** A websocket whose other end is in the same process, and a network that may do anything. */

/** @import { FakeClock } from "./fake_clock.js" */

/**
 * What a server does with one connection.
 * @typedef {object} ServerEnd
 * @property {(frame: string | Int16Array) => void} receive
 * @property {() => void} gone
 */

export class FakeNetwork {
  /** @type {FakeSocket[]} */
  sockets = [];
  /** Whether connections can be had. */
  isUp = true;
  #clock;
  #random;
  #accept;

  /**
   * @param {object} options
   * @param {FakeClock} options.clock
   * @param {() => number} options.random
   * @param {(socket: FakeSocket) => ServerEnd} options.accept
   */
  constructor({ clock, random, accept }) {
    this.#clock = clock;
    this.#random = random;
    this.#accept = accept;
  }

  /** What to give to a CaptionStream. @returns {any} */
  get WebSocket() {
    const [clock, random, accept] = [this.#clock, this.#random, this.#accept];
    const network = this;
    return class extends FakeSocket {
      /** @param {string} url @param {string[]} offered */
      constructor(url, offered) {
        super(url, offered, clock, random);
        network.sockets.push(this);
        clock.setTimeout(() => this.connect(network.isUp ? accept : null), 1 + 30 * random());
      }
    };
  }

  /** The newest connection. */
  get socket() {
    return /** @type {FakeSocket} */ (this.sockets.at(-1));
  }
}

/** Both ends of a websocket; what is on its way arrives late, in order, or not at all. */
export class FakeSocket {
  binaryType = "blob";
  bufferedAmount = 0;
  /** @type {number | null} */
  closedWith = null;
  /** @type {() => void} */
  onopen = () => {};
  /** @type {(event: {data: string}) => void} */
  onmessage = () => {};
  /** @type {(event: {code: number}) => void} */
  onclose = () => {};
  /** Nothing arrives any more, and nobody is told. */
  isDead = false;
  /** @type {(string | Int16Array)[]} */
  sent = [];
  /** @type {ServerEnd | null} */
  #server = null;
  #isOpen = false;
  #arrivesAt = { server: 0, page: 0 };
  #clock;
  #random;

  /**
   * @param {string} url
   * @param {string[]} offered
   * @param {FakeClock} clock
   * @param {() => number} random
   */
  constructor(url, offered, clock, random) {
    this.url = url;
    this.offered = offered;
    this.#clock = clock;
    this.#random = random;
  }

  /** @param {((socket: FakeSocket) => ServerEnd) | null} accept */
  connect(accept) {
    if (this.closedWith !== null) {
      return;
    }
    if (accept === null) {
      this.closedWith = 1006;
      this.onclose({ code: 1006 });
      return;
    }
    this.#isOpen = true;
    this.#server = accept(this);
    this.onopen();
  }

  // --- the page's end ---

  /** @param {string | Int16Array} frame */
  send(frame) {
    if (!this.#isOpen && this.closedWith === null) {
      throw new Error("InvalidStateError: still connecting");
    }
    const numBytes = typeof frame === "string" ? frame.length : frame.byteLength;
    this.sent.push(frame);
    this.bufferedAmount += numBytes;
    this.#later("server", () => {
      this.bufferedAmount -= numBytes;
      this.#server?.receive(frame);
    });
  }

  /** @param {number} code */
  close(code) {
    this.closedWith ??= code;
    this.#leave();
  }

  // --- the server's end ---

  /** @param {object} message */
  say(message) {
    this.#later("page", () => this.onmessage({ data: JSON.stringify(message) }));
  }

  /** @param {number} code */
  hangUp(code) {
    this.#later("page", () => this.drop(code));
  }

  // --- the network ---

  /** The connection ends now; what is on its way never arrives. @param {number} [code] */
  drop(code = 1006) {
    if (!this.#isOpen || this.closedWith !== null) {
      return;
    }
    this.closedWith = code;
    this.#leave();
    this.onclose({ code });
  }

  #leave() {
    this.#isOpen = false;
    this.#server?.gone();
    this.#server = null;
  }

  /** @param {"server" | "page"} end @param {() => void} arrive */
  #later(end, arrive) {
    const now = this.#clock.now();
    const at = Math.max(this.#arrivesAt[end], now + 1 + 80 * this.#random());
    this.#arrivesAt[end] = at;
    this.#clock.setTimeout(() => {
      if (this.#isOpen && !this.isDead) {
        arrive();
      }
    }, at - now);
  }
}
