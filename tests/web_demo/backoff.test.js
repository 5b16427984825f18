import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../../web_demo/backoff.js";

/** @param {Backoff} backoff @param {number} count */
const nextDelays = (backoff, count) => Array.from({ length: count }, () => backoff.next());

test("each wait is twice the one before, up to ten seconds", () => {
  const backoff = new Backoff({ random: () => 0.5 });
  assert.deepEqual(nextDelays(backoff, 7), [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
});

test("waits are spread by a fifth to either side", () => {
  assert.deepEqual(nextDelays(new Backoff({ random: () => 0 }), 2), [400, 800]);
  assert.deepEqual(nextDelays(new Backoff({ random: () => 1 }), 2), [600, 1200]);
});

test("no wait is shorter than the server asked for", () => {
  const backoff = new Backoff({ random: () => 0.5 });
  assert.equal(backoff.next(3000), 3000);
  assert.equal(backoff.next(3000), 3000);
  assert.equal(backoff.next(300), 2000);
});

test("once the server is there again, waits begin anew", () => {
  const backoff = new Backoff({ random: () => 0.5 });
  nextDelays(backoff, 4);
  backoff.reset();
  assert.equal(backoff.next(), 500);
});
