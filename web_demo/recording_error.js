/** Why a recording cannot be used, in words that name it and say what to do. */

/** A recording that cannot be used. */
export class RecordingError extends Error {
  /**
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(message, options) {
    super(message, options);
    this.name = "RecordingError";
  }
}

/**
 * @param {string} label
 * @param {unknown} cause
 */
export function unplayable(label, cause) {
  return new RecordingError(
    `${label} cannot be played by this browser: WAV, MP3, M4A, FLAC, Ogg and WebM usually can.`,
    { cause },
  );
}

/**
 * @param {string} label
 * @param {unknown} cause
 */
export function unreadable(label, cause) {
  const { message } = /** @type {Error} */ (cause);
  return new RecordingError(`${label} could not be read (${message}): choose it again.`, { cause });
}

/**
 * @param {string} label
 * @param {unknown} cause
 */
export function broken(label, cause) {
  const { message } = /** @type {Error} */ (cause);
  return new RecordingError(
    `${label} could not be opened (${message}): reload the page and choose it again.`,
    { cause },
  );
}

/** @param {string} label */
export function empty(label) {
  return new RecordingError(`${label} is empty: choose a recording with sound in it.`);
}

/** @param {string} label */
export function silent(label) {
  return new RecordingError(`${label} holds only silence: choose a recording with sound in it.`);
}

/** @param {string} label */
export function insecure(label) {
  return new RecordingError(
    `${label} cannot be played on a page from plain http: use https, or send it unplayed.`,
  );
}

/** @param {string} label */
export function unclicked(label) {
  return new RecordingError(
    `${label} was not played, as browsers want a click on the page first: start it again.`,
  );
}

/** @param {string} label */
export function stopped(label) {
  return new RecordingError(
    `${label} is no longer played, as the browser stopped the sound of this page: start it again.`,
  );
}
