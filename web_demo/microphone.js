/**
 * The microphone as chunks of 16-bit PCM, for this page and for any other:
 *
 *     const microphone = await Microphone.open({ onChunk: ({ pcm }) => socket.send(pcm) });
 *
 * Decides what to ask the browser for and says in words why there is no microphone and what to do
 * about it. Sending is left to the caller.
 *
 * @typedef {import("./pcm_tap.js").Chunk} Chunk
 * @typedef {"insecure" | "unsupported" | "denied" | "missing" | "busy" | "failed"} CaptureErrorKind
 */

import { keepRunning, openContext, openTap } from "./pcm_tap.js";

/** There is no sound from a microphone, or none any more; the message says what to do about it. */
export class CaptureError extends Error {
  /** @type {CaptureErrorKind} */
  #kind;

  /**
   * @param {CaptureErrorKind} kind
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(kind, message, options) {
    super(message, options);
    this.name = "CaptureError";
    this.#kind = kind;
  }

  get kind() {
    return this.#kind;
  }
}

/**
 * The microphones to choose from. Their names are known only after one was allowed; until then they
 * are numbered, and an id may be empty.
 * @param {Pick<typeof globalThis, "navigator">} [browser]
 * @returns {Promise<{id: string, label: string}[]>}
 */
export async function listMicrophones({ navigator } = globalThis) {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices
    .filter(({ kind }) => kind === "audioinput")
    .filter(({ deviceId }) => !ALIASES.includes(deviceId))
    .map(({ deviceId, label }, index) => ({
      id: deviceId,
      label: label || `Microphone ${index + 1}`,
    }));
}

const ALIASES = ["default", "communications"]; // Chromium lists the devices behind them as well

/** One open microphone. It records until it is closed or `onEnd` tells that it no longer can. */
export class Microphone {
  #context;
  #track;
  #source; // held, or a browser may collect it and the sound with it
  #tap;
  #stopCare;
  #onEnd;
  /** @type {Promise<void> | null} */
  #closed = null;

  /**
   * Asks for the microphone and begins to record. Throws CaptureError.
   * @param {object} options
   * @param {string} [options.deviceId]  of listMicrophones; one that is gone is replaced by the
   *   default microphone, as is an empty one
   * @param {boolean} [options.echoCancellation]  keeps what the loudspeakers play out of the sound
   * @param {(chunk: Chunk) => void} options.onChunk  gets 40 ms each time
   * @param {(error: CaptureError) => void} [options.onEnd]  called once, after the last chunk, if
   *   the microphone is lost
   * @param {typeof globalThis} [browser]
   * @returns {Promise<Microphone>}
   */
  static async open(
    { deviceId, echoCancellation = true, onChunk, onEnd = () => {} },
    browser = globalThis,
  ) {
    const stream = await ask(browser, deviceId, echoCancellation);
    const [track] = stream.getAudioTracks();
    /** @type {AudioContext | undefined} */
    let context;
    try {
      // Only now: headphones may change the device's rate when their microphone is opened.
      context = openContext(browser);
      const tap = await openTap(context, onChunk, browser);
      const source = context.createMediaStreamSource(stream);
      source.connect(tap.node);
      return new Microphone({ context, track, source, tap, onEnd }, browser);
    } catch (error) {
      track.stop();
      void context?.close();
      throw failure(/** @type {Error} */ (error));
    }
  }

  /**
   * @param {{context: AudioContext, track: MediaStreamTrack, source: AudioNode,
   *   tap: import("./pcm_tap.js").PcmTap, onEnd: (error: CaptureError) => void}} parts
   * @param {typeof globalThis} browser
   */
  constructor({ context, track, source, tap, onEnd }, browser) {
    this.#context = context;
    this.#track = track;
    this.#source = source;
    this.#tap = tap;
    this.#onEnd = onEnd;
    track.addEventListener("ended", () => this.#fail(goneError(track.label)));
    this.#stopCare = keepRunning(context, () => this.#fail(stoppedError()), browser);
  }

  get sampleRate() {
    return this.#context.sampleRate;
  }

  get label() {
    return this.#track.label;
  }

  /** Whether silence is handed on in place of the sound; the clock of the samples goes on. */
  get muted() {
    return !this.#track.enabled;
  }

  set muted(muted) {
    this.#track.enabled = !muted;
  }

  /**
   * Hands on the last chunk, shorter than the others, and gives the microphone back.
   * @returns {Promise<void>}
   */
  close() {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end() {
    this.#stopCare();
    await this.#tap.flush();
    this.#tap.close();
    this.#source.disconnect();
    this.#track.stop();
    await this.#context.close();
  }

  /** @param {CaptureError} error */
  async #fail(error) {
    if (this.#closed) return;
    await this.close();
    this.#onEnd(error);
  }
}

/**
 * The sound of one microphone, or a CaptureError why there is none.
 * @param {typeof globalThis} browser
 * @param {string | undefined} deviceId
 * @param {boolean} echoCancellation
 */
async function ask({ navigator, isSecureContext }, deviceId, echoCancellation) {
  // Pages that are not secure do not see the property at all, whatever its type says.
  const devices = /** @type {MediaDevices | undefined} */ (navigator.mediaDevices);
  if (!devices?.getUserMedia) throw absence(isSecureContext);
  const wishes = {
    echoCancellation,
    // Speech recognisers are trained on noise and hear more in it than in what a filter leaves.
    noiseSuppression: false,
    autoGainControl: true, // or someone far from the microphone is not heard as speaking at all
    channelCount: 1,
  };
  try {
    if (!deviceId) return await devices.getUserMedia({ audio: wishes });
    const exact = { ...wishes, deviceId: { exact: deviceId } };
    return await devices.getUserMedia({ audio: exact }).catch((error) => {
      if (!GONE.includes(error.name)) throw error;
      return devices.getUserMedia({ audio: wishes });
    });
  } catch (error) {
    throw explain(/** @type {Error} */ (error), await permission(navigator));
  }
}

const GONE = ["OverconstrainedError", "NotFoundError"];

/**
 * What the browser has been told about the microphone, where it says so.
 * @param {Navigator} navigator
 * @returns {Promise<PermissionState | "unknown">}
 */
async function permission(navigator) {
  try {
    return (await navigator.permissions.query({ name: "microphone" })).state;
  } catch {
    return "unknown"; // older browsers have no such question
  }
}

/** @param {boolean} isSecure */
function absence(isSecure) {
  if (isSecure) {
    return new CaptureError(
      "unsupported",
      "This browser gives pages no microphone: use a current Chromium, Firefox or Safari.",
    );
  }
  return new CaptureError(
    "insecure",
    "Only pages from https or http://localhost get a microphone: open this page that way.",
  );
}

/**
 * @param {Error} error  of the browser
 * @param {PermissionState | "unknown"} permitted
 * @returns {CaptureError}
 */
function explain(error, permitted) {
  const options = { cause: error };
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new CaptureError("denied", denial(error.message, permitted), options);
    case "NotFoundError":
    case "OverconstrainedError":
      return new CaptureError(
        "missing",
        "No microphone was found: connect one, then start again.",
        options,
      );
    case "NotReadableError":
    case "AbortError":
      return new CaptureError(
        "busy",
        "The microphone could not be read: close other programs that use it, then start again.",
        options,
      );
    default:
      return failure(error);
  }
}

/** @param {Error} error  of the browser, in its own words */
function failure(error) {
  return new CaptureError(
    "failed",
    `The microphone could not be opened (${error.name}: ${error.message}): choose another one.`,
    { cause: error },
  );
}

/**
 * @param {string} words  of the browser
 * @param {PermissionState | "unknown"} permitted
 */
function denial(words, permitted) {
  if (/system/i.test(words)) {
    return "The system keeps the microphone from this browser: allow it in its privacy settings.";
  }
  switch (permitted) {
    case "denied":
      return "The browser blocks the microphone here: allow it in the settings beside the address.";
    case "prompt":
      return "The microphone was not allowed: start again and choose Allow when you are asked.";
    default:
      return "The microphone was not allowed: start again, or see the settings beside the address.";
  }
}

/** @param {string} label */
function goneError(label) {
  return new CaptureError(
    "missing",
    `${label || "The microphone"} is gone: connect it again or allow it again, then start again.`,
  );
}

function stoppedError() {
  return new CaptureError(
    "failed",
    "The browser stopped the sound of this page, perhaps for a call: start again.",
  );
}
