import assert from "node:assert/strict";
import { test } from "node:test";
import { LatencyMeter } from "../../web_demo/latency.js";
import { final, message, speechStarted, speechStopped } from "./support/messages.js";

/**
 * Audio in chunks of 100 ms, each sent when it was complete, by a clock that began at 50.
 * @param {number} [untilS]
 */
function meterOf(untilS = 10, meter = new LatencyMeter()) {
  for (let chunk = 1; chunk <= Math.round(untilS * 10); chunk++) {
    meter.sent(chunk / 10, 50 + chunk / 10);
  }
  return meter;
}

/** @param {number} end */
const partial = (end) => message("partial", { segment: 0, start: 0, end });

/** @param {number | null} value */
const ms = (value) => (value === null ? null : Math.round(value * 1000));

test("a final is timed from the sending of its last speech", () => {
  const meter = meterOf();
  meter.received(speechStopped(2.05), 52.6);
  meter.received(final(0, 0.5, 2.05), 52.8);
  assert.deepEqual(meter.latenciesS.map(ms), [700]);
  assert.equal(ms(meter.lastS), 700);
});

test("a segment cut out of longer speech is not timed but the last one is", () => {
  const meter = meterOf();
  meter.received(final(0, 0, 4), 54.5);
  assert.equal(meter.lastS, null);
  meter.received(speechStopped(6), 56.5);
  meter.received(final(1, 4, 6), 57);
  assert.deepEqual(meter.latenciesS, [1]);
});

test("finals that come late find the stop of their own speech", () => {
  const meter = meterOf();
  meter.received(speechStopped(2), 52.5);
  meter.received(speechStopped(5), 55.5);
  meter.received(final(0, 1, 2.02), 56);
  meter.received(final(1, 3, 5.2), 56.5);
  assert.deepEqual(meter.latenciesS, [4, 1.5]);
  assert.equal(meter.medianS, 2.75);
  assert.equal(meter.lastS, 1.5);
});

test("a final that ends a little before its speech is still its own, and no further one is", () => {
  const meter = meterOf();
  meter.received(speechStopped(2.04), 52.5);
  meter.received(final(0, 1, 2), 53);
  meter.received(speechStopped(4.1), 54.5);
  meter.received(final(1, 2, 4), 55);
  assert.deepEqual(meter.latenciesS.map(ms), [900]);
});

test("speech without words leaves the next final to its own speech", () => {
  const meter = meterOf();
  meter.received(speechStopped(2), 52.5);
  meter.received(speechStopped(6), 56.5);
  meter.received(final(0, 5, 6), 57);
  assert.deepEqual(meter.latenciesS, [1]);
});

test("audio that rounding puts beyond the newest counts as the newest", () => {
  const meter = meterOf();
  meter.received(speechStopped(10.01), 60.5);
  meter.received(final(0, 8, 10.01), 61);
  assert.deepEqual(meter.latenciesS, [1]);
  meter.received(speechStarted(10.01), 62);
  assert.equal(meter.partialAge(62), 2);
});

test("speech that ended where a segment begins is not that segment's", () => {
  const meter = meterOf();
  meter.received(speechStopped(4), 54.5);
  meter.received(final(0, 4, 5), 56);
  assert.deepEqual(meter.latenciesS, []);
});

test("the median is the middle one in order of size, and unknown before any final", () => {
  assert.equal(new LatencyMeter().medianS, null);
  assert.equal(new LatencyMeter().lastS, null);
  const meter = meterOf(60);
  for (const [at, latencyS] of [
    [10, 9],
    [20, 2],
    [30, 10],
  ]) {
    meter.received(speechStopped(at), 50 + at + 0.5);
    meter.received(final(0, at - 1, at), 50 + at + latencyS);
  }
  assert.deepEqual(meter.latenciesS, [9, 2, 10]);
  assert.equal(meter.medianS, 9);
  assert.equal(meter.lastS, 10);
});

test("audio sent again after a lost connection counts from its first sending", () => {
  const meter = meterOf(10);
  for (const audioS of [4, 6, 10]) {
    meter.sent(audioS, 70);
  }
  meter.sent(11, 71);
  meter.received(speechStopped(6), 71);
  meter.received(final(0, 5, 6), 72);
  meter.received(speechStopped(11), 72.5);
  meter.received(final(1, 10, 11), 73);
  assert.deepEqual(meter.latenciesS, [16, 2]);
});

test("speech that is told twice, before and after a lost connection, is timed once", () => {
  const meter = meterOf(10);
  meter.received(speechStopped(6), 56.5);
  meter.received(speechStopped(6), 59);
  meter.received(final(0, 5, 6), 60);
  meter.received(final(1, 5.5, 7), 60.5);
  assert.deepEqual(meter.latenciesS, [4]);
});

test("in silence no partial has an age", () => {
  const meter = meterOf();
  assert.equal(meter.partialAge(60), null);
  meter.received(message("ack", { samples_received: 16000 }), 52);
  assert.equal(meter.partialAge(60), null);
});

test("before its first partial the age of an utterance is that of its beginning", () => {
  const meter = meterOf(3);
  meter.received(speechStarted(2), 52.1);
  assert.equal(ms(meter.partialAge(53)), 1000);
});

test("the age is that of the newest audio in the text, until the final has come", () => {
  const meter = meterOf(5);
  meter.received(speechStarted(2), 52.1);
  meter.received(partial(2.5), 52.9);
  assert.equal(ms(meter.partialAge(53)), 500);
  meter.received(partial(3.25), 53.5);
  assert.equal(ms(meter.partialAge(53.5)), 200);
  meter.received(speechStopped(3.8), 54.5);
  assert.equal(ms(meter.partialAge(54.5)), 1200);
  meter.received(final(0, 2, 4), 54.6);
  assert.equal(meter.partialAge(54.7), null);
});

test("after a cut the age begins at the cut, since speech goes on", () => {
  const meter = meterOf(40);
  meter.received(speechStarted(2), 52.1);
  meter.received(partial(27), 78);
  meter.received(final(0, 2, 28), 80);
  assert.equal(ms(meter.partialAge(81)), 3000);
  meter.received(partial(30), 81);
  assert.equal(ms(meter.partialAge(81)), 1000);
});

test("speech that ended without a partial is not waited for", () => {
  const meter = meterOf();
  meter.received(speechStarted(2), 52.1);
  meter.received(speechStopped(3), 53.5);
  assert.equal(meter.partialAge(54), null);
});

test("a final of earlier speech leaves the age of the speech going on", () => {
  const meter = meterOf(8);
  meter.received(speechStarted(1), 51.1);
  meter.received(partial(2), 52.5);
  meter.received(speechStopped(3), 53.5);
  meter.received(speechStarted(5), 55.1);
  assert.equal(ms(meter.partialAge(56)), 4000);
  meter.received(final(0, 1, 3.2), 56);
  assert.equal(ms(meter.partialAge(56)), 1000);
});

test("nothing has an age once everything was delivered", () => {
  const meter = meterOf();
  meter.received(speechStarted(2), 52.1);
  meter.received(partial(3), 53.1);
  meter.received(message("done", { audio_s: 10, segments: 0 }), 60);
  assert.equal(meter.partialAge(61), null);
});

// What is forgotten shows in the answers: audio older than all that is remembered counts as sent
// with the oldest of it.

test("sendings before the end of the last final are forgotten", () => {
  const meter = meterOf();
  meter.received(final(0, 0, 4), 54.5);
  meter.received(speechStopped(1), 54.6);
  meter.received(final(1, 0.5, 5), 56);
  assert.deepEqual(meter.latenciesS, [2]);
});

test("an hour of silence leaves the sendings of its last five minutes", () => {
  const meter = meterOf(3600);
  meter.received(speechStarted(1), 50 + 3600);
  assert.equal(ms(meter.partialAge(50 + 3600)), 300_000);
  meter.received(speechStarted(3301), 50 + 3600);
  assert.equal(ms(meter.partialAge(50 + 3600)), 299_000);
});

test("speech without words is not waited for over an hour", () => {
  const meter = meterOf(10);
  meter.received(speechStopped(9), 60);
  meterOf(3600, meter);
  meter.received(final(0, 8, 10), 50 + 3600);
  assert.deepEqual(meter.latenciesS, []);
});

test("a message about audio although none was sent is timed from its own arrival", () => {
  const meter = new LatencyMeter();
  meter.received(speechStarted(1), 5);
  assert.equal(meter.partialAge(7), 2);
});
