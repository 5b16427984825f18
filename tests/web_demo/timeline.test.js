import assert from "node:assert/strict";
import { test } from "node:test";
import { Timeline } from "../../web_demo/timeline.js";
import { final, message, speechStarted, speechStopped } from "./support/messages.js";

/**
 * @param {number} start
 * @param {number} end
 * @param {string} [text]
 */
const partial = (start, end, text = "so") => message("partial", { segment: 0, start, end, text });

/** @param {any[]} messages */
function timelineOf(...messages) {
  const timeline = new Timeline();
  for (const one of messages) {
    timeline.receive(one);
  }
  return timeline;
}

test("an empty time line reaches back half a minute, or as far as it was told", () => {
  const timeline = new Timeline();
  assert.equal(timeline.spanS, 30);
  assert.equal(new Timeline({ spanS: 5 }).spanS, 5);
  assert.equal(timeline.nowS, 0);
  assert.deepEqual([timeline.levels, timeline.speech, timeline.segments], [[], [], []]);
});

test("levels are kept as far back as the time line reaches, and no further", () => {
  const timeline = new Timeline({ spanS: 1 });
  for (const audioS of [0.25, 0.5, 0.75, 1, 1.25, 1.5]) {
    timeline.addLevel(audioS, audioS / 2);
  }
  assert.equal(timeline.nowS, 1.5);
  assert.deepEqual(
    timeline.levels,
    [0.5, 0.75, 1, 1.25, 1.5].map((atS) => ({ atS, level: atS / 2 })),
  );
});

test("levels that come out of order are put in order, and time does not go back", () => {
  const timeline = new Timeline();
  for (const audioS of [0.04, 0.12, 0.08, 0.16, 0.02]) {
    timeline.addLevel(audioS, audioS);
  }
  assert.deepEqual(
    timeline.levels.map(({ atS }) => atS),
    [0.02, 0.04, 0.08, 0.12, 0.16],
  );
  assert.equal(timeline.nowS, 0.16);
});

test("speech goes on until it has stopped", () => {
  const timeline = timelineOf(speechStarted(1));
  assert.deepEqual(timeline.speech, [{ startS: 1, endS: null }]);
  timeline.receive(speechStopped(2.5));
  timeline.receive(speechStarted(3));
  assert.deepEqual(timeline.speech, [
    { startS: 1, endS: 2.5 },
    { startS: 3, endS: null },
  ]);
});

test("speech that starts a little before the last has ended does not overlap it", () => {
  const timeline = timelineOf(speechStarted(1), speechStopped(2.004), speechStarted(2));
  assert.deepEqual(timeline.speech, [
    { startS: 1, endS: 2 },
    { startS: 2, endS: null },
  ]);
});

test("a stop before its start leaves speech of no length, and one without speech nothing", () => {
  const timeline = timelineOf(speechStarted(1), speechStopped(0.998));
  assert.deepEqual(timeline.speech, [{ startS: 1, endS: 1 }]);
  timeline.receive(speechStopped(5));
  assert.deepEqual(timeline.speech, [{ startS: 1, endS: 1 }]);
  assert.deepEqual(timelineOf(speechStopped(1)).speech, []);
});

test("what a new connection hears in audio sent again replaces what the lost one had heard", () => {
  const lost = [speechStarted(1), speechStopped(2), speechStarted(5), speechStopped(6)];
  const timeline = timelineOf(...lost, speechStarted(7), speechStarted(5.03), speechStopped(6.5));
  assert.deepEqual(timeline.speech, [
    { startS: 1, endS: 2 },
    { startS: 5, endS: 5.03 },
    { startS: 5.03, endS: 6.5 },
  ]);
  timeline.receive(speechStarted(5.03));
  assert.deepEqual(timeline.speech.slice(2), [{ startS: 5.03, endS: null }]);
});

test("a segment grows with its partials and is closed by its final", () => {
  const timeline = timelineOf(partial(1, 1.5), partial(1, 2));
  assert.deepEqual(timeline.segments, [{ startS: 1, endS: 2, isFinal: false }]);
  timeline.receive(final(0, 1, 2.5));
  timeline.receive(partial(3, 4));
  assert.deepEqual(timeline.segments, [
    { startS: 1, endS: 2.5, isFinal: true },
    { startS: 3, endS: 4, isFinal: false },
  ]);
  timeline.receive(final(1, 3, 5));
  timeline.receive(final(2, 5, 6));
  assert.deepEqual(
    timeline.segments.map(({ startS, isFinal }) => [startS, isFinal]),
    [
      [1, true],
      [3, true],
      [5, true],
    ],
  );
});

test("a segment that turns out to say nothing disappears", () => {
  const timeline = timelineOf(final(0, 0, 1), partial(1, 2), partial(1, 3, ""));
  assert.deepEqual(timeline.segments, [{ startS: 0, endS: 1, isFinal: true }]);
  timeline.receive(partial(1, 3));
  timeline.receive({ ...final(1, 1, 3), text: "" });
  assert.deepEqual(timeline.segments, [{ startS: 0, endS: 1, isFinal: true }]);
});

test("what is over is forgotten once it lies outside, and speech going on never is", () => {
  const timeline = timelineOf(
    speechStarted(1),
    speechStopped(2),
    final(0, 1, 2),
    speechStarted(3),
    final(1, 3, 4),
  );
  timeline.addLevel(32, 0);
  assert.equal(timeline.speech.length, 2);
  assert.equal(timeline.segments.length, 2);
  timeline.addLevel(32.001, 0);
  assert.deepEqual(timeline.speech, [{ startS: 3, endS: null }]);
  assert.deepEqual(timeline.segments, [{ startS: 3, endS: 4, isFinal: true }]);
  timeline.addLevel(100, 0);
  assert.deepEqual(timeline.speech, [{ startS: 3, endS: null }]);
  assert.deepEqual(timeline.segments, []);
});

test("what is told too late to be shown is not kept", () => {
  const timeline = new Timeline();
  timeline.addLevel(100, 0);
  timeline.receive(final(0, 68, 69));
  timeline.receive(speechStarted(60));
  timeline.receive(speechStopped(69));
  assert.deepEqual([timeline.speech, timeline.segments], [[], []]);
});

test("hours of speech hold no more than half a minute of it", () => {
  const timeline = new Timeline();
  let mostHeld = 0;
  for (let audioS = 1; audioS <= 4 * 3600; audioS++) {
    timeline.addLevel(audioS, 0.5);
    timeline.receive(speechStarted(audioS - 0.9));
    timeline.receive(partial(audioS - 1, audioS));
    timeline.receive(speechStopped(audioS - 0.2));
    timeline.receive(final(audioS, audioS - 1, audioS));
    const { levels, speech, segments } = timeline;
    mostHeld = Math.max(mostHeld, levels.length, speech.length, segments.length);
  }
  assert.equal(mostHeld, 31);
});

test("messages that tell of no sound change nothing", () => {
  const before = [speechStarted(1), partial(1, 2)];
  const others = [message("ready"), message("ack", { samples_received: 1 }), message("done")];
  const [without, having] = [timelineOf(...before), timelineOf(...before, ...others)];
  assert.deepEqual(having.speech, without.speech);
  assert.deepEqual(having.segments, without.segments);
});
