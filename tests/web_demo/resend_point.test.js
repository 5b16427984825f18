import assert from "node:assert/strict";
import { test } from "node:test";
import { ResendPoint } from "../../web_demo/resend_point.js";
import { ack, final, message, speechStarted, speechStopped } from "./support/messages.js";

const SAMPLE_RATE = 44_100;

/** @param {...any} messages */
function pointAfter(...messages) {
  const point = new ResendPoint({ sampleRate: SAMPLE_RATE });
  for (const one of messages) {
    point.receive(one);
  }
  return point.sample / SAMPLE_RATE;
}

/** @param {number} seconds */
const ackAt = (seconds) => ack(seconds * SAMPLE_RATE);

test("a final's audio is never needed again", () => {
  assert.equal(pointAfter(), 0);
  assert.equal(pointAfter(speechStarted(1), speechStopped(3), final(0, 0.7, 3.2)), 3.2);
});

test("a final's end is the nearest sample", () => {
  const point = new ResendPoint({ sampleRate: 16_000 });
  point.receive(final(0, 0.18, 2.44));
  assert.equal(point.sample, 39_040);
});

test("an ack alone says nothing of audio that the server may not have listened to", () => {
  assert.equal(pointAfter(ackAt(32)), 0);
  assert.equal(pointAfter(ackAt(40)), 8);
});

test("speech that goes on is kept, as far back as a segment can begin", () => {
  assert.equal(pointAfter(speechStarted(5), ackAt(60)), 0);
  assert.equal(pointAfter(speechStarted(5), ackAt(70)), 8);
});

test("speech that has ended is kept until its final comes", () => {
  const pending = [speechStarted(5), speechStopped(7), ackAt(50)];
  assert.equal(pointAfter(...pending), 0);
  assert.equal(pointAfter(...pending, final(0, 4.7, 7.2), ackAt(51)), 19);
});

test("a final settles the speech before it, but not the speech after it", () => {
  const twice = [speechStarted(5), speechStopped(7), speechStarted(9), speechStopped(11)];
  assert.equal(pointAfter(...twice, final(0, 4.7, 7.2), ackAt(50)), 7.2);
  assert.equal(pointAfter(...twice, final(0, 8.7, 10.98), ackAt(50)), 18);
});

test("speech in which no words were found is not kept for ever", () => {
  assert.equal(pointAfter(speechStarted(5), speechStopped(7), ackAt(100)), 38);
});

test("the point never moves back", () => {
  assert.equal(pointAfter(final(0, 0, 50), ackAt(60)), 50);
  assert.equal(pointAfter(ackAt(100), speechStarted(98), ackAt(101)), 68);
  assert.equal(pointAfter(ackAt(100), final(0, 60, 65)), 68);
});

test("other messages do not move it", () => {
  const partial = message("partial", { segment: 0, start: 0, end: 9 });
  assert.equal(pointAfter(message("ready"), partial, message("done", { audio_s: 9 })), 0);
});
