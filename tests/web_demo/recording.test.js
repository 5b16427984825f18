import assert from "node:assert/strict";
import { test } from "node:test";

import { Recording, RecordingError } from "../../web_demo/recording.js";
import { settle } from "./support/fake_audio.js";

/** @typedef {import("../../web_demo/recording.js").OnEnd} OnEnd */

/** What is handed on when a test says so. */
class FakePlayer {
  sampleRate = 16_000;
  durationS = 3;
  muted = false;
  numShut = 0;
  /** @type {OnEnd} */
  end = () => {};
  /** @type {Error | null} */
  refusal = null;

  /** @param {OnEnd} onEnd */
  async start(onEnd) {
    if (this.refusal) throw this.refusal;
    this.end = onEnd;
  }

  async shut() {
    this.numShut += 1;
  }
}

async function startRecording() {
  const player = new FakePlayer();
  /** @type {(Error | null)[]} */
  const ends = [];
  const recording = new Recording("talk.wav", player, (error) => ends.push(error));
  await recording.start();
  return { recording, player, ends };
}

/** The label that a recording of this source has in what is said of it. */
async function labelOf(/** @type {Blob | string} */ source) {
  const browser = /** @type {any} */ ({ isSecureContext: false });
  try {
    await Recording.open({ source, aloud: true, onChunk: () => {} }, browser);
  } catch (error) {
    if (error instanceof RecordingError) return error.message.split(" cannot")[0];
    throw error;
  }
}

test("a file has its name, a URL its last part, and a blob none", async () => {
  assert.equal(await labelOf(new File(["RIFF"], "talk.wav")), "talk.wav");
  assert.equal(await labelOf("https://page.example/some/talk.flac?v=2#t=3"), "talk.flac");
  assert.equal(await labelOf(new Blob(["RIFF"])), "The recording");
});

test("a file without a byte is not even opened", async () => {
  const source = new File([], "void.wav");
  const browser = /** @type {any} */ ({}); // whatever is asked of it would throw
  for (const aloud of [true, false]) {
    const opening = Recording.open({ source, aloud, onChunk: () => {} }, browser);
    await assert.rejects(opening, { name: "RecordingError", message: /^void\.wav is empty/ });
  }
});

test("a recording is what its player is", async () => {
  const { recording, player } = await startRecording();
  assert.equal(recording.label, "talk.wav");
  assert.equal(recording.sampleRate, 16_000);
  assert.equal(recording.durationS, 3);
  recording.muted = true;
  assert.equal(player.muted, true);
  assert.equal(recording.muted, true);
});

test("the end is told once, when the player has shut", async () => {
  const { player, ends } = await startRecording();
  player.end(null);
  player.end(new Error("too late"));
  assert.equal(player.numShut, 1);
  await settle();
  assert.deepEqual(ends, [null]);
  assert.equal(player.numShut, 1);
});

test("what went wrong is told as it is", async () => {
  const { player, ends } = await startRecording();
  const error = new RecordingError("talk.wav broke off: choose it again.");
  player.end(error);
  await settle();
  assert.deepEqual(ends, [error]);
});

test("closing twice is closing once, and no end", async () => {
  const { recording, player, ends } = await startRecording();
  await Promise.all([recording.close(), recording.close()]);
  player.end(null);
  await settle();
  assert.equal(player.numShut, 1);
  assert.deepEqual(ends, []);
});

test("a player that does not start is shut, and the caller told why", async () => {
  const player = new FakePlayer();
  player.refusal = new RecordingError("talk.wav was not played: start it again.");
  const recording = new Recording("talk.wav", player, () => assert.fail("no end was to be told"));
  await assert.rejects(recording.start(), player.refusal);
  assert.equal(player.numShut, 1);
});

test("a player that does not start as it was shut meanwhile is no error", async () => {
  const player = new FakePlayer();
  player.refusal = new RecordingError("talk.wav was not played: start it again.");
  const recording = new Recording("talk.wav", player, () => assert.fail("no end was to be told"));
  const starting = recording.start();
  await recording.close();
  await starting;
  assert.equal(player.numShut, 1);
});
