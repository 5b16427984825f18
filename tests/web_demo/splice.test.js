import assert from "node:assert/strict";
import { test } from "node:test";
import { Splice, shifted } from "../../web_demo/splice.js";
import { ack, final, message, speechStarted, speechStopped } from "./support/messages.js";

const SAMPLE_RATE = 16_000;

test("a message of a later stretch has that stretch's place in all its times and numbers", () => {
  const origin = { atS: 10, numSegments: 3, numSamples: 160_000 };
  const word = { word: "so", start: 1, end: 2, confidence: 1 };
  const cases = [
    [speechStarted(1), { at: 11 }],
    [speechStopped(2), { at: 12 }],
    [message("flushed", { id: 7, at: 4 }), { at: 14 }],
    [ack(16_000), { samples_received: 176_000 }],
    [
      message("partial", { segment: 0, start: 1, end: 2, stable_end: 1.5 }),
      { segment: 3, start: 11, end: 12, stable_end: 11.5 },
    ],
    [
      { ...final(1, 1, 2), words: [word] },
      { segment: 4, start: 11, end: 12, words: [{ ...word, start: 11, end: 12 }] },
    ],
    [message("done", { audio_s: 5, segments: 2 }), { audio_s: 15, segments: 5 }],
    [message("ready"), {}],
    [message("warning", { code: "lagging", message: "", interim_interval_ms: 800 }), {}],
  ];
  for (const [given, changed] of cases) {
    assert.deepEqual(shifted(given, origin), { ...given, ...changed });
  }
});

test("a final without words stays without", () => {
  assert.equal("words" in shifted(final(0, 1, 2), { atS: 1, numSegments: 0 }), false);
});

test("what came before is not changed", () => {
  const given = Object.freeze(final(0, 1, 2));
  assert.equal(shifted(given, { atS: 1, numSegments: 1 }).type, "final");
  assert.equal(given.start, 1);
});

test("segments, times and seq go on over connections", () => {
  const splice = new Splice({ sampleRate: SAMPLE_RATE });
  splice.begin(0);
  splice.receive(message("ready"));
  splice.receive(speechStarted(1));
  splice.receive(final(0, 0.7, 3));
  assert.equal(splice.resendSample, 48_000);
  splice.begin(48_000);
  assert.equal(splice.receive(message("ready")), null);
  const told = /** @type {any} */ (splice.receive(final(0, 0.5, 2)));
  assert.equal(told.segment, 1);
  assert.equal(told.seq, 4);
  assert.deepEqual([told.start, told.end], [3.5, 5]);
  assert.equal(splice.resendSample, 80_000);
});

test("speech that is heard again is told once, and still begins and ends in turn", () => {
  const splice = new Splice({ sampleRate: SAMPLE_RATE });
  /** @param {any} given */
  const at = (given) => /** @type {any} */ (splice.receive(given))?.at ?? null;
  splice.begin(0);
  assert.equal(at(speechStarted(2)), 2);
  assert.equal(at(speechStopped(4)), 4);
  assert.equal(at(speechStarted(6)), 6);
  splice.begin(SAMPLE_RATE); // all is heard again, 1 s earlier on this connection's clock
  const again = [speechStarted(1), speechStopped(3), speechStarted(5), speechStopped(7)];
  assert.deepEqual(again.map(at), [null, null, null, 8]);
  assert.equal(at(speechStarted(9)), 10);
});

test("speech whose end was told is not told again where it is heard to end a little later", () => {
  const splice = new Splice({ sampleRate: SAMPLE_RATE });
  splice.begin(0);
  splice.receive(speechStarted(2));
  splice.receive(speechStopped(4));
  splice.begin(0);
  assert.equal(splice.receive(speechStarted(2.01)), null);
  assert.equal(splice.receive(speechStopped(4.03)), null);
});
