/** Numbers and codes as people read them. Pure. */

/**
 * `1:02` or `1:00:02`: where in the audio something is.
 *
 * @param {number} seconds
 */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const pad = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${pad(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

/**
 * `523 ms`, `12.3 s`, or a dash for what is not known.
 *
 * @param {number | null} seconds
 */
export function duration(seconds) {
  if (seconds === null) return "–";
  const ms = Math.round(seconds * 1000);
  return ms < 10_000 ? `${ms} ms` : `${seconds.toFixed(1)} s`;
}

/**
 * The English name of a language code; the code where the browser knows no name.
 *
 * @param {string} code ISO 639-1
 */
export function languageName(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code) ?? code;
  } catch (error) {
    if (error instanceof RangeError) return code; // not of the form of a language code
    throw error;
  }
}
