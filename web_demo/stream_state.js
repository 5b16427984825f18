/**
 * How a stream is, in words for people.
 *
 * Decides the sentences, which the page shows verbatim; what happens is caption_session.js's
 * decision.
 */

/**
 * @typedef {object} StreamState
 * @property {"connecting" | "open" | "reconnecting" | "stopping" | "done" | "failed"} phase after
 *   "reconnecting" the newest partial is void: its audio is heard again
 * @property {string} sentence
 * @property {number} [retryInMs] until the next attempt to connect
 * @property {number} heldS audio that would be sent again if the connection dropped now
 * @property {number} lostS audio that was dropped because more could not be held
 */

/** Why a connection ended or could not be had; another is tried. */
export const TROUBLE = {
  lost: "The connection was lost.",
  ending: "The server is shutting down or restarting.",
  silent: "The server does not answer.",
  slow: "The connection is too slow for the audio.",
  unreachable: "The server cannot be reached.",
};

/**
 * The same, by the code of the server's error. After any other error another try fares no better.
 * @type {Readonly<Record<string, string>>}
 */
export const TROUBLE_OF_ERROR = {
  idle_timeout: "The server heard nothing for a while and ended the session.",
  engine_failure: "The server could not decode this speech.",
  shutting_down: TROUBLE.ending,
};

/** Why nothing more is tried. */
export const FAILURE = {
  aborted: "Stopped without waiting for the last words.",
  decoding:
    "The server failed three times in a row to decode this speech; " +
    "try again later, or tell whoever runs it.",
  /** @param {number} withinS */
  notBack: (withinS) =>
    `The server did not come back within ${withinS} s; the last words are lost.`,
  /** @param {string} why */
  undecodable: (why) =>
    `The server sent what this page cannot read (${why}): ` +
    "they are of different versions. Reload the page.",
  /** @param {string} what */
  unsupported: (what) => `The server cannot do this: ${what}. Change it in the settings.`,
  /** @param {string} why */
  refused: (why) => `The server refused what this page sent (${why}). Reload the page.`,
};

/**
 * @param {object} stream
 * @param {boolean} stream.isOpen
 * @param {boolean} stream.isStopping
 * @param {boolean} stream.wasOpen before this connection
 * @param {string} stream.trouble what ended the connection before; empty where none has ended
 * @param {number | undefined} stream.retryInMs
 * @param {number} stream.heldS
 * @param {number} stream.lostS
 * @returns {StreamState}
 */
export function goingOn({ isOpen, isStopping, wasOpen, trouble, retryInMs, heldS, lostS }) {
  const figures = { heldS, lostS };
  const lost = lostSentence(lostS);
  if (isOpen && isStopping) {
    return { phase: "stopping", sentence: `Waiting for the last words.${lost}`, ...figures };
  }
  if (isOpen) {
    const sentence = wasOpen ? `Connected again.${lost}` : `Connected.${lost}`;
    return { phase: "open", sentence, ...figures };
  }
  if (trouble === "") {
    const phase = isStopping ? "stopping" : "connecting";
    return { phase, sentence: `Connecting to the server.${lost}`, ...figures };
  }
  const when = retryInMs === undefined ? "now" : `in ${Math.ceil(retryInMs / 1000)} s`;
  const kept = isStopping ? "the last words are kept" : "what you say is kept";
  const sentence = `${trouble} Trying again ${when}; ${kept}.${lost}`;
  return retryInMs === undefined
    ? { phase: "reconnecting", sentence, ...figures }
    : { phase: "reconnecting", sentence, retryInMs, ...figures };
}

/**
 * @param {string | null} failure what ended it before its time
 * @param {{heldS: number, lostS: number}} figures
 * @returns {StreamState}
 */
export function atEnd(failure, { heldS, lostS }) {
  const phase = failure === null ? "done" : "failed";
  const sentence = `${failure ?? "Every word has arrived."}${lostSentence(lostS)}`;
  return { phase, sentence, heldS, lostS };
}

/** @param {number} lostS */
function lostSentence(lostS) {
  return lostS > 0 ? ` ${Math.ceil(lostS)} s of audio had to be dropped.` : "";
}
