/**
 * What of a browser's sound the page uses, moved by hand: nothing happens here that a test does not
 * cause, but for the answers that a browser always gives.
 */

/** Takes `work` to its end: everything that is ready to happen has happened. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

export class FakeNode {
  /** @type {unknown[]} */
  connectedTo = [];
  gain = { value: 1 };

  /** @param {unknown} node */
  connect(node) {
    this.connectedTo.push(node);
  }

  disconnect() {
    this.connectedTo = [];
  }
}

/** A worklet's node: `rest` is the chunk it holds back until it is flushed. */
export class FakeWorkletNode extends FakeNode {
  /** @type {unknown} */
  rest = null;
  /** Whether its thread was stopped. */
  deaf = false;
  /** @type {string[]} */
  told = [];

  /**
   * @param {FakeContext} context
   * @param {string} name
   * @param {object} options
   */
  constructor(context, name, options) {
    super();
    this.name = name;
    this.options = options;
    context.worklets.push(this);
    const told = (/** @type {string} */ message) => {
      this.told.push(message);
      if (message !== "flush" || this.deaf) return;
      if (this.rest) this.post(this.rest);
      this.rest = null;
      this.post("flushed");
    };
    this.port = {
      /** @type {((event: {data: unknown}) => void) | null} */
      onmessage: null,
      postMessage: told,
    };
  }

  /** @param {unknown} data */
  post(data) {
    setImmediate(() => this.port.onmessage?.({ data }));
  }
}

export class FakeContext extends EventTarget {
  /** @type {AudioContextState} */
  state = "running";
  resumed = 0;
  /** @type {FakeWorkletNode[]} */
  worklets = [];
  /** @type {FakeNode[]} */
  sources = [];
  gainNode = new FakeNode();
  destination = new FakeNode();
  /** @type {URL[]} */
  modules = [];

  /**
   * @param {{latencyHint: string, sampleRate?: number}} options
   * @param {number} deviceRate
   */
  constructor(options, deviceRate) {
    super();
    this.options = options;
    this.sampleRate = options.sampleRate ?? deviceRate;
    this.audioWorklet = {
      addModule: async (/** @type {URL} */ url) => {
        this.modules.push(url);
      },
    };
  }

  async resume() {
    this.resumed += 1;
    if (this.state !== "suspended") throw new DOMException("not now", "InvalidStateError");
  }

  async close() {
    this.enter("closed");
  }

  /** @param {AudioContextState} state */
  enter(state) {
    this.state = state;
    this.dispatchEvent(new Event("statechange"));
  }

  createGain() {
    return this.gainNode;
  }

  createMediaStreamSource() {
    return this.#newSource();
  }

  createMediaElementSource() {
    return this.#newSource();
  }

  #newSource() {
    const source = new FakeNode();
    this.sources.push(source);
    return source;
  }
}

/** Timers that ring when a test says so. */
export class FakeTimers {
  /** @type {Map<number, {ring: () => void, ms: number}>} */
  #set = new Map();
  #next = 1;

  setTimeout = (/** @type {() => void} */ ring, /** @type {number} */ ms) => {
    this.#next += 1;
    this.#set.set(this.#next, { ring, ms });
    return this.#next;
  };

  clearTimeout = (/** @type {number} */ timer) => {
    this.#set.delete(timer);
  };

  get delaysMs() {
    return [...this.#set.values()].map(({ ms }) => ms);
  }

  ring() {
    const due = [...this.#set.values()];
    this.#set.clear();
    for (const { ring } of due) ring();
  }
}

/**
 * A browser's globals as far as sound goes. `contexts` are those that the page opened.
 * @param {Record<string, unknown>} [others]  further globals, or others in their place
 * @param {number} [deviceRate]
 */
export function fakeBrowser(others = {}, deviceRate = 48_000) {
  /** @type {FakeContext[]} */
  const contexts = [];
  const timers = new FakeTimers();
  class AudioContext extends FakeContext {
    /** @param {{latencyHint: string, sampleRate?: number}} options */
    constructor(options) {
      super(options, deviceRate);
      contexts.push(this);
    }
  }
  const globals = {
    AudioContext,
    AudioWorkletNode: FakeWorkletNode,
    isSecureContext: true,
    setTimeout: timers.setTimeout,
    clearTimeout: timers.clearTimeout,
    ...others,
  };
  return { browser: /** @type {any} */ (globals), contexts, timers };
}

/**
 * A chunk as a worklet posts it.
 * @param {number[]} samples
 */
export function chunkOf(...samples) {
  const peak = Math.max(0, ...samples.map(Math.abs)) / 32768;
  return { pcm: Int16Array.from(samples), peak };
}
