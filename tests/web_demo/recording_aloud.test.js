import assert from "node:assert/strict";
import { test } from "node:test";

import { Recording, RecordingError } from "../../web_demo/recording.js";
import { chunkOf, fakeBrowser, settle } from "./support/fake_audio.js";

class FakeMedia extends EventTarget {
  duration = 2.5;
  src = "";
  preload = "";
  isPaused = true;
  error = null;
  begin = () => {};
  /** @param {Error} _error */
  refuse = (_error) => {};
  #playing = new Promise((resolve, reject) => {
    this.begin = () => resolve(undefined);
    this.refuse = reject;
  });

  /** @param {string} name */
  removeAttribute(name) {
    assert.equal(name, "src");
    this.src = "";
    this.duration = Number.NaN;
  }

  load() {}

  pause() {
    this.isPaused = true;
  }

  play() {
    this.isPaused = false;
    return this.#playing;
  }
}

/** @param {Record<string, unknown>} [others] */
function withPlayer(others = {}) {
  const media = new FakeMedia();
  /** @type {string[]} */
  const revoked = [];
  const fake = fakeBrowser({
    Audio: class {
      constructor() {
        // biome-ignore lint/correctness/noConstructorReturn: `new Audio()` is to give this one.
        return media;
      }
    },
    URL: {
      createObjectURL: () => "blob:1",
      revokeObjectURL: (/** @type {string} */ url) => revoked.push(url),
    },
    ...others,
  });
  return { ...fake, media, revoked };
}

/** A recording about to be started, everything it told and everything a test may do to it. */
async function openAloud(options = {}) {
  const fake = withPlayer();
  /** @type {any[]} */
  const told = [];
  const opening = Recording.open(
    {
      source: new File(["RIFF"], "talk.wav"),
      aloud: true,
      onChunk: (chunk) => told.push(chunk),
      onEnd: (error) => told.push(error),
      ...options,
    },
    fake.browser,
  );
  fake.media.dispatchEvent(new Event("loadedmetadata"));
  const recording = await opening;
  const [context] = fake.contexts;
  const [worklet] = context.worklets;
  const [source] = context.sources;
  return { ...fake, recording, told, context, worklet, source };
}

/** The same, playing. */
async function playAloud(options = {}) {
  const playing = await openAloud(options);
  playing.media.begin();
  await playing.recording.start();
  return playing;
}

test("a recording is heard, and tapped from its start on", async () => {
  const { recording, context, source, worklet, media } = await openAloud();
  assert.equal(media.src, "blob:1");
  assert.equal(media.isPaused, true);
  assert.deepEqual(source.connectedTo, [context.gainNode]);
  assert.deepEqual(context.gainNode.connectedTo, [context.destination]);
  media.begin();
  await recording.start();
  assert.equal(media.isPaused, false);
  assert.deepEqual(source.connectedTo, [context.gainNode, worklet]);
});

test("sound is asked for while the click that opened the recording still counts", async () => {
  const { context } = await openAloud();
  assert.equal(context.resumed, 1);
});

test("a recording aloud says what it is, also when it is over", async () => {
  const { recording, context } = await openAloud();
  await recording.close();
  assert.equal(recording.label, "talk.wav");
  assert.equal(recording.durationS, 2.5);
  assert.equal(recording.sampleRate, context.sampleRate);
});

test("the silence before it plays is no part of the recording, but early sound is", async () => {
  const { recording, worklet, media, told } = await openAloud();
  const starting = recording.start();
  for (const sample of [0, 0, 5, 0]) worklet.post(chunkOf(sample));
  await settle();
  assert.deepEqual(told, [chunkOf(5)]);
  media.begin();
  await starting;
  worklet.post(chunkOf(0));
  await settle();
  assert.deepEqual(told, [chunkOf(5), chunkOf(0)]);
});

test("the end comes after the last chunk", async () => {
  const { media, worklet, told, context, revoked } = await playAloud();
  worklet.rest = chunkOf(3);
  media.dispatchEvent(new Event("ended"));
  await settle();
  assert.deepEqual(told, [chunkOf(3), null]);
  assert.equal(context.state, "closed");
  assert.deepEqual(revoked, ["blob:1"]);
});

test("a recording of silence alone is told of at its end", async () => {
  const { media, worklet, told } = await playAloud();
  worklet.rest = chunkOf(0);
  media.dispatchEvent(new Event("ended"));
  await settle();
  assert.match(told[1].message, /^talk\.wav holds only silence/);
});

test("muting silences the loudspeakers and not the tap", async () => {
  const { recording, context, source, worklet } = await playAloud();
  assert.equal(recording.muted, false);
  recording.muted = true;
  assert.equal(context.gainNode.gain.value, 0);
  assert.equal(recording.muted, true);
  assert.ok(source.connectedTo.includes(worklet));
  recording.muted = false;
  assert.equal(context.gainNode.gain.value, 1);
});

test("close stops the sound, hands on what was heard and tells no end", async () => {
  const { recording, media, worklet, told, context, source, revoked } = await playAloud();
  worklet.rest = chunkOf(3);
  const resumed = context.resumed;
  await recording.close();
  media.dispatchEvent(new Event("ended"));
  context.enter("interrupted");
  await settle();
  assert.deepEqual(told, [chunkOf(3)]);
  assert.deepEqual(source.connectedTo, []);
  assert.equal(context.resumed, resumed);
  assert.equal(media.isPaused, true);
  assert.deepEqual(revoked, ["blob:1"]);
});

test("a file that breaks off is told of", async () => {
  const { media, told } = await playAloud();
  media.dispatchEvent(new Event("error"));
  await settle();
  assert.match(told[0].message, /^talk\.wav cannot be played/);
});

test("sound that the browser stops for good ends the recording", async () => {
  const { context, timers, told } = await playAloud();
  context.enter("interrupted");
  timers.ring();
  await settle();
  assert.match(told[0].message, /^talk\.wav is no longer played/);
});

test("a file the browser cannot play is told of by name, and given back", async () => {
  const { browser, media, contexts, revoked } = withPlayer();
  const source = new File(["?"], "notes.txt");
  const opening = Recording.open({ source, aloud: true, onChunk: () => {} }, browser);
  media.dispatchEvent(new Event("error"));
  await assert.rejects(opening, {
    name: "RecordingError",
    message: /^notes\.txt cannot be played/,
  });
  assert.equal(contexts[0].state, "closed");
  assert.deepEqual(revoked, ["blob:1"]);
});

test("a click is asked for where the browser wants one", async () => {
  const { recording, media } = await openAloud();
  media.refuse(new DOMException("play() failed", "NotAllowedError"));
  await assert.rejects(recording.start(), { name: "RecordingError", message: /want a click/ });
});

test("a format that is refused late is told of all the same", async () => {
  const { recording, media } = await openAloud();
  media.refuse(new DOMException("no decoder", "NotSupportedError"));
  await assert.rejects(recording.start(), { name: "RecordingError", message: /cannot be played/ });
});

test("closing while it is about to play is no error", async () => {
  const { recording, media, told } = await openAloud();
  const starting = recording.start();
  const closing = recording.close();
  media.refuse(new DOMException("interrupted by pause()", "AbortError"));
  await Promise.all([starting, closing]);
  assert.deepEqual(told, []);
});

test("a recording that does not begin is closed and tells no end", async () => {
  const { recording, media, told, context, revoked } = await openAloud();
  media.refuse(new DOMException("no decoder", "NotSupportedError"));
  await assert.rejects(recording.start());
  media.dispatchEvent(new Event("error"));
  await settle();
  assert.deepEqual(told, []);
  assert.equal(context.state, "closed");
  assert.deepEqual(revoked, ["blob:1"]);
});

test("what broke off before it began is told of once", async () => {
  const { recording, media, told } = await openAloud();
  const starting = recording.start();
  media.dispatchEvent(new Event("error"));
  media.refuse(new DOMException("no decoder", "NotSupportedError"));
  await starting;
  await settle();
  assert.equal(told.length, 1);
  assert.match(told[0].message, /^talk\.wav cannot be played/);
});

test("where the sound cannot be taken out of the browser, the file is given back", async () => {
  const { browser, media, contexts, revoked } = withPlayer({
    AudioWorkletNode: class {
      constructor() {
        throw new DOMException("no such processor", "AbortError");
      }
    },
  });
  const opening = Recording.open(
    { source: new Blob(["RIFF"]), aloud: true, onChunk() {} },
    browser,
  );
  media.dispatchEvent(new Event("loadedmetadata"));
  await assert.rejects(opening, { name: "RecordingError", message: /no such processor/ });
  assert.equal(contexts[0].state, "closed");
  assert.deepEqual(revoked, ["blob:1"]);
});

test("a URL is played as it is", async () => {
  const { recording, media } = await openAloud({ source: "http://localhost/sample.flac" });
  assert.equal(media.src, "http://localhost/sample.flac");
  assert.equal(recording.label, "sample.flac");
});

test("a page that is not secure cannot take sound from what it plays, and says so", async () => {
  const { browser, contexts } = withPlayer({ isSecureContext: false });
  const opening = Recording.open({ source: "/a.wav", aloud: true, onChunk: () => {} }, browser);
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof RecordingError);
    assert.match(error.message, /^a\.wav cannot be played on .* https/);
    return true;
  });
  assert.deepEqual(contexts, []);
});
