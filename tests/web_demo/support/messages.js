/** Messages of a server, with what a test does not care about filled in. */

/** @import { ServerMessage } from "../../../web_demo/protocol.js" */

const FIELDS = {
  ready: { session: "s", token: "t", model: "base", resume_window_s: 0 },
  partial: { revision: 1, text: "so", stable_text: "", stable_end: 0, language: "en" },
  final: {
    text: "So.",
    language: "en",
    language_probability: 1,
    confidence: 1,
    no_speech_prob: 0,
  },
  error: { message: "it did not work", fatal: true },
};

/**
 * @param {ServerMessage["type"]} type
 * @param {Record<string, unknown>} [given]
 * @returns {any} a ServerMessage
 */
export function message(type, given = {}) {
  const usual = /** @type {Record<string, object>} */ (FIELDS)[type];
  return { type, seq: 1, ...usual, ...given };
}

/**
 * A final of one segment.
 * @param {number} segment @param {number} start @param {number} end
 */
export const final = (segment, start, end) => message("final", { segment, start, end });

/**
 * That all audio up to there was received.
 * @param {number} samples
 */
export const ack = (samples) => message("ack", { samples_received: samples });

/** @param {number} at */
export const speechStarted = (at) => message("speech_started", { at });

/** @param {number} at */
export const speechStopped = (at) => message("speech_stopped", { at });
