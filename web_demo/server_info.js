/**
 * What the server says of itself over plain HTTP: its model, and why it would refuse a connection.
 *
 * Decides what each answer means and puts it into words. A browser is told nothing about a
 * websocket that was refused; a plain GET of the same path is answered with the reason.
 */

import { ProtocolError, STREAM_PATH, subprotocols } from "./protocol.js";

const ANSWER_WITHIN_MS = 8000;
const RETRIED_STATUSES = new Set([429, 502, 504]); // of proxies, about servers that may come back

/** @typedef {{name: string, languages: string[], tasks: string[]}} Model */

/**
 * @typedef {object} Refusal
 * @property {number} status of HTTP; 426 where the server would accept, 0 where it gave no answer
 * @property {string} sentence
 * @property {number} retryAfterMs what the server asks to wait at least
 * @property {boolean} retry whether another attempt may succeed by itself
 */

/**
 * @typedef {object} Access
 * @property {typeof globalThis.fetch} [fetch]
 * @property {string} [base] the address that the server's paths are relative to; the page's own
 */

/** The server wants an API key, and was shown none or a wrong one. */
export class KeyRequiredError extends Error {
  /** @param {string} sentence */
  constructor(sentence) {
    super(sentence);
    this.name = "KeyRequiredError";
  }
}

/**
 * What the server runs.
 * @param {string} [key]
 * @param {Access} [access]
 * @returns {Promise<Model>}
 * @throws {KeyRequiredError}
 * @throws {ProtocolError} for a key that a browser cannot send
 * @throws {Error} for anything else, in words
 */
export async function fetchModel(key = "", access = {}) {
  const response = await get("v1/models", key, access);
  if (response === null) {
    throw new Error(UNREACHABLE);
  }
  if (response.status === 401) {
    throw new KeyRequiredError(keySentence(key));
  }
  if (!response.ok) {
    throw new Error(`The server did not say what it runs (HTTP ${response.status}).`);
  }
  try {
    const [{ id, languages, tasks }] = (await response.json()).data;
    return { name: String(id), languages: [...languages], tasks: [...tasks] };
  } catch (cause) {
    throw new Error("What answers there is not a Starling server.", { cause });
  }
}

/**
 * Why the server would refuse a connection now. Never rejects.
 * @param {string} [key]
 * @param {Access} [access]
 * @returns {Promise<Refusal>}
 */
export async function refusal(key = "", access = {}) {
  try {
    const response = await get(STREAM_PATH.slice(1), key, access);
    return response === null ? refused(0, UNREACHABLE, true) : await meaning(response, key);
  } catch (error) {
    if (error instanceof ProtocolError) {
      return refused(0, error.message, false);
    }
    return refused(0, UNREACHABLE, true); // the answer broke off
  }
}

const UNREACHABLE = "The server cannot be reached; is it running?";

/**
 * The answer, or null where none came.
 * @param {string} path
 * @param {string} key
 * @param {Access} access
 */
async function get(path, key, { fetch = globalThis.fetch, base = globalThis.document?.baseURI }) {
  subprotocols(key); // throws for a key that no connection could show
  const headers = new Headers(key === "" ? {} : { authorization: `Bearer ${key}` });
  const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
  try {
    return await fetch(new URL(path, base), { headers, signal, cache: "no-store" });
  } catch {
    return null;
  }
}

/**
 * @param {Response} response
 * @param {string} key
 * @returns {Promise<Refusal>}
 */
async function meaning(response, key) {
  const { status } = response;
  switch (status) {
    case 426:
      return refused(
        status,
        "The connection could not be opened although the server is there; " +
          "if this lasts, a proxy on the way may not pass on websockets.",
        true,
      );
    case 401:
      return refused(status, keySentence(key), false);
    case 403:
      return refused(
        status,
        "The server does not admit pages of this address; " +
          "whoever runs it can allow it with --allowed-origin.",
        false,
      );
    case 503: {
      const isEnding = (await response.text()).includes("shutting down");
      const sentence = isEnding
        ? "The server is shutting down."
        : "The server is full: it takes no more sessions now.";
      const retryAfterS = Number(response.headers.get("retry-after")) || 0; // a date counts as none
      return refused(status, sentence, true, 1000 * retryAfterS);
    }
    default:
      return refused(
        status,
        `The server refused the connection (HTTP ${status}).`,
        RETRIED_STATUSES.has(status),
      );
  }
}

/**
 * @param {number} status
 * @param {string} sentence
 * @param {boolean} retry
 * @param {number} [retryAfterMs]
 * @returns {Refusal}
 */
function refused(status, sentence, retry, retryAfterMs = 0) {
  return { status, sentence, retryAfterMs, retry };
}

/** @param {string} key */
function keySentence(key) {
  return key === ""
    ? "This server wants an API key: enter it in the settings."
    : "The server does not know this API key: correct it in the settings.";
}
