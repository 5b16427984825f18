/**
 * Takes sound out of an audio graph: the context, and the tap that hands on what flows into it.
 *
 * What microphone.js and recording_aloud.js have in common. How samples become chunks is decided in
 * pcm_worklet.js; what is connected to the tap is left to the callers.
 *
 * @typedef {import("./pcm_worklet.js").Chunk} Chunk
 */

import { FLUSHED, PROCESSOR_NAME } from "./pcm_worklet.js";

const MAX_SAMPLE_RATE = 48_000; // of the protocol
const FLUSH_MS = 1_000; // an audio thread that was stopped never answers
const RESUME_MS = 5_000; // longer than any device takes to start, shorter than a person's patience

/**
 * An audio context at the device's own rate or, where the protocol does not take that, 48 kHz.
 * @param {Pick<typeof globalThis, "AudioContext">} browser
 * @returns {AudioContext}
 */
export function openContext(browser) {
  const context = new browser.AudioContext({ latencyHint: "interactive" });
  if (context.sampleRate <= MAX_SAMPLE_RATE) return context;
  void context.close();
  return new browser.AudioContext({ latencyHint: "interactive", sampleRate: MAX_SAMPLE_RATE });
}

/**
 * Sees to it that a context runs: one that is suspended (until a click, say) or interrupted (by a
 * telephone call) is resumed, and `onStopped` is called once where that does not come about.
 * @param {AudioContext} context
 * @param {() => void} onStopped
 * @param {Pick<typeof globalThis, "setTimeout" | "clearTimeout">} browser
 * @returns {() => void}  ends this care
 */
export function keepRunning(context, onStopped, browser) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const giveUp = () => {
    leave();
    onStopped();
  };
  const look = () => {
    if (context.state === "running" || context.state === "closed") {
      browser.clearTimeout(timer);
      timer = undefined;
      return;
    }
    // Refused during a call; the state that comes after it is another occasion.
    context.resume().catch(() => {});
    timer ??= browser.setTimeout(giveUp, RESUME_MS);
  };
  const leave = () => {
    browser.clearTimeout(timer);
    context.removeEventListener("statechange", look);
  };
  context.addEventListener("statechange", look);
  look();
  return leave;
}

/**
 * @param {AudioContext} context
 * @param {(chunk: Chunk) => void} onChunk
 * @param {Pick<typeof globalThis, "AudioWorkletNode" | "setTimeout">} browser
 * @returns {Promise<PcmTap>}
 */
export async function openTap(context, onChunk, browser = globalThis) {
  await context.audioWorklet.addModule(new URL("./pcm_worklet.js", import.meta.url));
  return new PcmTap(context, onChunk, browser);
}

/** The end of an audio graph from which chunks of 40 ms are handed on; connect to `node`. */
export class PcmTap {
  #browser;
  #node;
  /** @type {(() => void)[]} */
  #flushes = [];

  /**
   * @param {AudioContext} context  that has loaded the worklet
   * @param {(chunk: Chunk) => void} onChunk
   * @param {Pick<typeof globalThis, "AudioWorkletNode" | "setTimeout">} browser
   */
  constructor(context, onChunk, browser) {
    this.#browser = browser;
    // Every browser runs a worklet without outputs; nothing has to reach the loudspeakers.
    this.#node = new browser.AudioWorkletNode(context, PROCESSOR_NAME, { numberOfOutputs: 0 });
    this.#node.port.onmessage = ({ data }) => {
      if (data === FLUSHED) this.#flushes.shift()?.();
      else onChunk(data);
    };
  }

  /** @returns {AudioNode} */
  get node() {
    return this.#node;
  }

  /** Resolves when everything that came in so far was handed on, the last chunk shorter. */
  flush() {
    return /** @type {Promise<void>} */ (
      new Promise((resolve) => {
        this.#flushes.push(resolve);
        this.#browser.setTimeout(resolve, FLUSH_MS);
        this.#node.port.postMessage("flush");
      })
    );
  }

  /** Nothing is handed on from now on. */
  close() {
    this.#node.port.onmessage = null;
    this.#node.port.postMessage("close");
    this.#node.disconnect();
  }
}
