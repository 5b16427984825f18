/** The golden messages of tests/fixtures/protocol, as plain values. */

import { readdirSync, readFileSync } from "node:fs";

const FOLDER = new URL("../fixtures/protocol/", import.meta.url);

/** Every type that has a golden message. */
export const GOLDEN_TYPES = readdirSync(FOLDER).map((name) => name.replace(/\.json$/, ""));

/**
 * @param {string} type
 * @returns {string} as it is on the wire
 */
export function goldenText(type) {
  return readFileSync(new URL(`${type}.json`, FOLDER), "utf8");
}

/**
 * @param {string} type
 * @param {object} [changes] fields that are to be different
 * @returns {any}
 */
export function golden(type, changes = {}) {
  return { ...JSON.parse(goldenText(type)), ...changes };
}
