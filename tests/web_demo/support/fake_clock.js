/** Time that passes as fast as its timers can be called. */

export class FakeClock {
  #now = 0;
  #lastId = 0;
  /** @type {Map<number, {at: number, callback: () => void}>} */
  #timers = new Map();

  now = () => this.#now;

  /** @param {() => void} callback @param {number} delayMs */
  setTimeout = (callback, delayMs) => {
    this.#lastId += 1;
    this.#timers.set(this.#lastId, { at: this.#now + delayMs, callback });
    return this.#lastId;
  };

  /** @param {number} id */
  clearTimeout = (id) => {
    this.#timers.delete(id);
  };

  /** @param {number} delayMs @returns {Promise<void>} */
  sleep = (delayMs) => new Promise((resolve) => this.setTimeout(resolve, delayMs));

  /**
   * Calls what is due, in order of time, until a promise has settled.
   * @template T
   * @param {Promise<T>} promise
   */
  async runUntil(promise) {
    let isSettled = false;
    const settle = () => {
      isSettled = true;
    };
    promise.then(settle, settle);
    await microtasks();
    while (!isSettled) {
      this.#callNext();
      await microtasks();
    }
    return promise;
  }

  /** @param {number} ms */
  async run(ms) {
    await this.runUntil(this.sleep(ms));
  }

  #callNext() {
    let next = { id: 0, at: Infinity, callback: () => {} };
    for (const [id, { at, callback }] of this.#timers) {
      if (at < next.at) {
        next = { id, at, callback };
      }
    }
    if (next.id === 0) {
      throw new Error("nothing is due any more, and what was waited for has not happened");
    }
    this.#timers.delete(next.id);
    this.#now = Math.max(this.#now, next.at);
    next.callback();
  }
}

async function microtasks() {
  for (let turn = 0; turn < 5; turn += 1) {
    await null;
  }
}
