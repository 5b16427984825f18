import assert from "node:assert/strict";
import { test } from "node:test";

import { Listening } from "../../web_demo/listening.js";

/** @import { SourceEvents, ListeningOptions } from "../../web_demo/listening.js" */

/** A listening at 1000 Hz whose source and stream write down what happens to them. */
function setUp({ openingFails = false, startFails = false, stopFails = false } = {}) {
  /** @type {string[]} */
  const log = [];
  const clock = { now: 0 };
  const told = { messages: 0, ends: /** @type {(string | null)[]} */ ([]) };
  const ends = {
    source: /** @type {SourceEvents} */ ({}),
    stream: /** @type {Parameters<ListeningOptions["openStream"]>[0]} */ ({}),
  };
  const listening = new Listening({
    openSource: async (events) => {
      log.push("source opened");
      if (openingFails) throw new Error("no microphone");
      ends.source = events;
      return {
        sampleRate: 1000,
        label: "Microphone 1",
        muted: false,
        start: async () => {
          log.push("source started");
          if (startFails) throw new Error("the browser does not play it");
        },
        close: async () => {
          events.onChunk(chunk(20));
          log.push("source closed");
        },
      };
    },
    openStream: (options) => {
      ends.stream = options;
      return {
        open: () => void log.push(`stream opened at ${options.sampleRate} Hz`),
        send: (pcm) => void log.push(`sent ${pcm.length}`),
        room: async () => void log.push("room asked for"),
        stop: async () => {
          log.push("stream stopped");
          if (stopFails) throw new Error("the last words are lost");
        },
        abort: () => void log.push("stream aborted"),
      };
    },
    onMessage: () => {
      told.messages += 1;
    },
    onState: () => {},
    onEnd: (error) => told.ends.push(error?.message ?? null),
    now: () => clock.now,
  });
  return { listening, log, told, ends, clock };
}

/** @param {number} numSamples */
function chunk(numSamples, peak = 0.5) {
  return { pcm: new Int16Array(numSamples), peak };
}

test("the source is opened first and the stream ended last, with the source's last audio sent", async () => {
  const { listening, log, told, ends } = setUp();
  await listening.start();
  ends.source.onChunk(chunk(40));
  await listening.stop();
  assert.deepEqual(log, [
    "source opened",
    "stream opened at 1000 Hz",
    "source started",
    "sent 40",
    "sent 20",
    "source closed",
    "stream stopped",
  ]);
  assert.deepEqual(told.ends, [null]);
  assert.equal(listening.audioS, 0.06);
});

test("a source that cannot be opened is told to who starts, and nothing is sent anywhere", async () => {
  const { listening, log } = setUp({ openingFails: true });
  await assert.rejects(listening.start(), /no microphone/);
  assert.deepEqual(log, ["source opened"]);
});

test("a source that ends by itself ends the listening, once", async () => {
  const { listening, told, ends } = setUp();
  await listening.start();
  ends.source.onEnd(new Error("unplugged"));
  await listening.stop();
  assert.deepEqual(told.ends, ["unplugged"]);
});

test("words that were lost are told at the end", async () => {
  const { listening, told } = setUp({ stopFails: true });
  await listening.start();
  await listening.stop();
  assert.deepEqual(told.ends, ["the last words are lost"]);
});

test("a stream that failed ends the listening with its sentence", async () => {
  const { listening, log, told, ends } = setUp();
  await listening.start();
  ends.stream.onState({
    phase: "failed",
    sentence: "the API key is wrong",
    heldS: 0,
    lostS: 0,
  });
  await listening.stop();
  assert.deepEqual(told.ends, ["the API key is wrong"]);
  assert.equal(log.includes("source closed"), true);
});

test("a listening that is stopped while permission is asked closes what it was given", async () => {
  const { listening, log } = setUp();
  const started = listening.start();
  await listening.stop();
  await started;
  assert.deepEqual(log, ["source opened", "source closed"]);
});

test("messages are measured by the time their audio was captured", async () => {
  const { listening, told, ends, clock } = setUp();
  await listening.start();
  for (let i = 1; i <= 50; i += 1) {
    clock.now = i * 0.04;
    ends.source.onChunk(chunk(40, i / 50));
  }
  ends.stream.onMessage({ type: "speech_started", seq: 2, at: 0.2 });
  assert.equal(listening.timeline.speech.length, 1);
  ends.stream.onMessage({ type: "speech_stopped", seq: 3, at: 1 });
  clock.now = 2.5;
  ends.stream.onMessage({
    type: "final",
    seq: 4,
    segment: 0,
    start: 0.1,
    end: 1,
    text: "Hello.",
    language: "en",
    language_probability: 1,
    confidence: 1,
    no_speech_prob: 0,
  });
  assert.equal(told.messages, 3);
  assert.equal(listening.meter.lastS, 1.5);
  assert.equal(listening.peak, 1);
});

test("muting reaches the source, and giving up the stream", async () => {
  const { listening, log } = setUp();
  listening.muted = true; // before there is a source: nothing to mute
  await listening.start();
  assert.equal(listening.muted, false);
  listening.muted = true;
  assert.equal(listening.muted, true);
  listening.giveUp();
  assert.equal(log.at(-1), "stream aborted");
});

test("a partial whose connection was lost is neither aged nor drawn any more", async () => {
  const { listening, ends, clock } = setUp();
  await listening.start();
  for (let i = 1; i <= 50; i += 1) {
    clock.now = i * 0.04;
    ends.source.onChunk(chunk(40));
  }
  ends.stream.onMessage({
    type: "partial",
    seq: 2,
    segment: 0,
    revision: 1,
    start: 0.1,
    end: 1,
    text: "Hello",
    stable_text: "",
    stable_end: 0,
    language: "en",
  });
  assert.equal(listening.partialAgeS, 1);
  assert.equal(listening.timeline.segments.length, 1);
  ends.stream.onState({ phase: "reconnecting", sentence: "Trying again.", heldS: 1, lostS: 0 });
  assert.equal(listening.partialAgeS, null);
  assert.equal(listening.timeline.segments.length, 0);
});

test("a source that does not start is told to who starts, and its stream is given up", async () => {
  const { listening, log, told, ends } = setUp({ startFails: true });
  await assert.rejects(listening.start(), /does not play it/);
  assert.equal(log.at(-1), "stream aborted");
  ends.stream.onState({ phase: "failed", sentence: "Stopped.", heldS: 0, lostS: 0 });
  await listening.stop();
  assert.deepEqual(told.ends, []);
});

test("from its stop on, whatever the connection does, a listening is stopping", async () => {
  const { listening, ends } = setUp();
  await listening.start();
  assert.equal(listening.isStopping, false);
  const stopped = listening.stop();
  ends.stream.onState({ phase: "reconnecting", sentence: "Trying again.", heldS: 1, lostS: 0 });
  assert.equal(listening.isStopping, true);
  await stopped;
});
