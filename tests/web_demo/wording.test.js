import assert from "node:assert/strict";
import { test } from "node:test";

import { clock, duration, languageName } from "../../web_demo/wording.js";

test("a position is minutes and seconds, and hours only where there are some", () => {
  assert.equal(clock(0), "0:00");
  assert.equal(clock(59.99), "0:59");
  assert.equal(clock(62.5), "1:02");
  assert.equal(clock(3599.9), "59:59");
  assert.equal(clock(3602), "1:00:02");
  assert.equal(clock(36_000), "10:00:00");
});

test("a short time is in milliseconds, a long one in seconds, an unknown one a dash", () => {
  assert.equal(duration(null), "–");
  assert.equal(duration(0), "0 ms");
  assert.equal(duration(0.5234), "523 ms");
  assert.equal(duration(9.9994), "9999 ms");
  assert.equal(duration(9.9996), "10.0 s");
  assert.equal(duration(12.34), "12.3 s");
});

test("a language is called by its name, or by its code where that has none", () => {
  assert.equal(languageName("de"), "German");
  assert.equal(languageName("haw"), "Hawaiian");
  assert.equal(languageName("qq"), "qq");
  assert.equal(languageName("not a code"), "not a code");
});
