import assert from "node:assert/strict";
import { test } from "node:test";
import { Transcript } from "../../web_demo/transcript.js";
import { golden } from "./golden.js";

/** @param {object[]} messages */
function transcriptOf(...messages) {
  const transcript = new Transcript();
  for (const message of messages) {
    transcript.receive(/** @type {any} */ (message));
  }
  return transcript;
}

test("the newest partial is the one that counts", () => {
  const first = golden("partial", { revision: 1 });
  const second = golden("partial", { revision: 2 });
  assert.equal(transcriptOf().partial, null);
  assert.equal(transcriptOf(first, second).partial, second);
});

test("a final takes the place of its partial, and the next partial follows it", () => {
  const [final, next] = [golden("final"), golden("partial", { segment: 1 })];
  const transcript = transcriptOf(golden("partial"), final);
  assert.equal(transcript.partial, null);
  assert.deepEqual(transcript.finals, [final]);
  transcript.receive(next);
  assert.equal(transcript.partial, next);
  assert.deepEqual(transcript.finals, [final]);
});

test("messages that hold no text change nothing", () => {
  const partial = golden("partial");
  const others = ["ready", "ack", "speech_started", "speech_stopped", "warning", "error", "done"];
  const transcript = transcriptOf(partial, ...others.map((type) => golden(type)));
  assert.equal(transcript.partial, partial);
  assert.deepEqual(transcript.finals, []);
});

test("the text is a line for each final that says something, without the partial", () => {
  const texts = [" One.", "", "Zwei  drei. ", " "];
  const finals = texts.map((text, segment) => golden("final", { segment, text }));
  const transcript = transcriptOf(...finals, golden("partial", { segment: 4 }));
  assert.equal(transcript.text, "One.\nZwei  drei.");
  assert.deepEqual(transcript.finals, finals);
  assert.equal(transcriptOf().text, "");
});

test("a partial whose connection was lost can be dropped; finals stay", () => {
  const final = golden("final");
  const transcript = transcriptOf(final, golden("partial", { segment: 1 }));
  transcript.dropPartial();
  assert.equal(transcript.partial, null);
  assert.deepEqual(transcript.finals, [final]);
});

test("a cleared transcript is empty, and finals handed out before stay as they are", () => {
  const final = golden("final");
  const transcript = transcriptOf(final, golden("partial", { segment: 1 }));
  const before = transcript.finals;
  transcript.clear();
  assert.deepEqual([transcript.finals, transcript.partial, transcript.text], [[], null, ""]);
  assert.deepEqual(before, [final]);
});
