/**
 * A transcript as text, SRT, WebVTT or JSON.
 *
 * Decides the writing only: that of stream_server/transcript_formats.py, byte for byte but for
 * JSON, which holds what the wire tells of a segment instead of what the engine knows.
 */

/** @import { Final } from "./protocol.js" */

export const FORMATS = Object.freeze(["text", "srt", "vtt", "json"]);

/** @type {Readonly<Record<string, Readonly<{extension: string, mime: string}>>>} */
const FILE_TYPES = Object.freeze({
  text: Object.freeze({ extension: "txt", mime: "text/plain;charset=utf-8" }),
  srt: Object.freeze({ extension: "srt", mime: "application/x-subrip;charset=utf-8" }),
  vtt: Object.freeze({ extension: "vtt", mime: "text/vtt" }),
  json: Object.freeze({ extension: "json", mime: "application/json" }),
});

/**
 * How a file in that format is called.
 * @param {string} form one of FORMATS
 * @returns {Readonly<{extension: string, mime: string}>}
 * @throws {RangeError}
 */
export function fileType(form) {
  checkForm(form);
  return FILE_TYPES[form];
}

/**
 * The whole file, ending in a newline where it holds anything.
 * @param {readonly Final[]} finals
 * @param {number} durationS of the audio
 * @param {string} form one of FORMATS
 * @returns {string}
 * @throws {RangeError}
 */
export function render(finals, durationS, form) {
  checkForm(form);
  const spoken = finals.filter((final) => final.text !== "");
  if (form === "json") {
    return `${JSON.stringify(documentOf(spoken, durationS))}\n`;
  }
  if (form === "text") {
    return spoken.map((final) => `${final.text.trim()}\n`).join("");
  }
  const isSrt = form === "srt";
  const comma = isSrt ? "," : ".";
  const cues = spoken.map(({ start, end, text }) => {
    const line = isSrt ? text.trim() : escaped(text.trim());
    return `${clock(start, comma)} --> ${clock(end, comma)}\n${line}\n`;
  });
  if (isSrt) {
    return cues.map((cue, index) => `${index + 1}\n${cue}`).join("\n");
  }
  return ["WEBVTT\n", ...cues].join("\n");
}

/**
 * Cue text of WebVTT (W3C WebVTT, 4.2.2): these would begin a tag or a reference, or end the cue.
 * @param {string} text
 */
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** @param {string} form */
function checkForm(form) {
  if (!FORMATS.includes(form)) {
    throw new RangeError(`format: got '${form}', takes one of ${FORMATS.join(", ")}`);
  }
}

/**
 * @param {readonly Final[]} spoken
 * @param {number} durationS
 */
function documentOf(spoken, durationS) {
  return {
    text: spoken.map((final) => final.text.trim()).join(" "),
    language: spoken[0]?.language ?? null,
    duration: durationS,
    segments: spoken.map((final, id) => ({
      id,
      start: final.start,
      end: final.end,
      text: final.text.trim(),
      confidence: rounded(final.confidence),
      no_speech_prob: rounded(final.no_speech_prob),
      language: final.language,
      ...(final.words?.length && {
        words: final.words.map((word) => ({ ...word, confidence: rounded(word.confidence) })),
      }),
    })),
  };
}

/** A probability as it is worth writing. @param {number} probability */
function rounded(probability) {
  return Number(probability.toFixed(4));
}

/**
 * `01:02:03,450`.
 * @param {number} seconds
 * @param {string} comma
 */
function clock(seconds, comma) {
  const totalMs = roundHalfEven(seconds * 1000);
  const totalS = Math.floor(totalMs / 1000);
  const pair = (/** @type {number} */ count) => String(count).padStart(2, "0");
  const hours = Math.floor(totalS / 3600);
  const ms = String(totalMs % 1000).padStart(3, "0");
  return `${pair(hours)}:${pair(Math.floor(totalS / 60) % 60)}:${pair(totalS % 60)}${comma}${ms}`;
}

/**
 * As Python rounds: one in sixteen samples of 16 kHz lies halfway between two milliseconds.
 * @param {number} value not negative
 */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}
