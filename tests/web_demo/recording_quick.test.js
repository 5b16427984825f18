import assert from "node:assert/strict";
import { test } from "node:test";

import { Recording } from "../../web_demo/recording.js";
import { fakeBrowser, settle } from "./support/fake_audio.js";

const CHUNK_SAMPLES = 3200;

/**
 * A browser that decodes everything to these channels, or nothing.
 * @param {Float32Array[] | null} channels
 * @param {Record<string, unknown>} [others]
 */
function withDecoder(channels, others = {}) {
  /** @type {ArrayBuffer[]} */
  const decoded = [];
  const OfflineAudioContext = class {
    /**
     * @param {number} _channels
     * @param {number} _length
     * @param {number} sampleRate
     */
    constructor(_channels, _length, sampleRate) {
      this.sampleRate = sampleRate;
    }

    /** @param {ArrayBuffer} bytes */
    async decodeAudioData(bytes) {
      decoded.push(bytes);
      if (!channels) throw new DOMException("Unable to decode audio data", "EncodingError");
      return {
        length: channels[0].length,
        duration: channels[0].length / this.sampleRate,
        numberOfChannels: channels.length,
        getChannelData: (/** @type {number} */ channel) => channels[channel],
      };
    }
  };
  return { ...fakeBrowser({ OfflineAudioContext, MessageChannel, ...others }), decoded };
}

/**
 * @param {Float32Array[] | null} channels
 * @param {object} [options]
 * @param {Record<string, unknown>} [others]
 */
async function openQuick(channels, options = {}, others = {}) {
  const { browser, decoded } = withDecoder(channels, others);
  /** @type {any[]} */
  const told = [];
  const recording = await Recording.open(
    {
      source: new File(["RIFF"], "talk.wav"),
      aloud: false,
      onChunk: (chunk) => told.push(chunk),
      onEnd: (error) => told.push(error),
      ...options,
    },
    browser,
  );
  return { recording, told, decoded };
}

const ramp = Float32Array.from({ length: 2 * CHUNK_SAMPLES + 5 }, (_, at) => (at % 100) / 128);

test("a recording is handed on whole, in chunks of 200 ms, and then ends", async () => {
  const { recording, told } = await openQuick([ramp]);
  await settle();
  assert.equal(told.length, 0, "not before it is started");
  await recording.start();
  await settle();
  assert.equal(told.pop(), null);
  assert.deepEqual(
    told.map(({ pcm }) => pcm.length),
    [CHUNK_SAMPLES, CHUNK_SAMPLES, 5],
  );
  assert.deepEqual(
    told.flatMap(({ pcm }) => [...pcm]),
    [...ramp].map((value) => Math.round(value * 32768)),
  );
  assert.equal(told[0].peak, 99 / 128);
});

test("a recording says what it is", async () => {
  const { recording, decoded } = await openQuick([ramp]);
  assert.equal(recording.label, "talk.wav");
  assert.equal(recording.sampleRate, 16_000);
  assert.equal(recording.durationS, ramp.length / 16_000);
  assert.equal(new TextDecoder().decode(decoded[0]), "RIFF");
});

test("channels are mixed", async () => {
  const { recording, told } = await openQuick([
    new Float32Array(4).fill(0.5),
    new Float32Array(4).fill(0.25),
  ]);
  await recording.start();
  await settle();
  assert.deepEqual([...told[0].pcm], Array(4).fill(12288));
});

test("each chunk waits until there is room for it", async () => {
  /** @type {(() => void)[]} */
  const waiting = [];
  const room = () => new Promise((resolve) => waiting.push(() => resolve(undefined)));
  const { recording, told } = await openQuick([ramp], { room });
  await recording.start();
  for (let numChunks = 0; numChunks < 2; numChunks += 1) {
    await settle();
    assert.equal(told.length, numChunks);
    assert.equal(waiting.length, 1);
    waiting.pop()?.();
  }
  await settle();
  assert.equal(told.length, 2);
});

test("between chunks the page goes on living", async () => {
  const { recording, told } = await openQuick([ramp]);
  await recording.start();
  const seen = [];
  while (told.at(-1) !== null) {
    await new Promise((resolve) => setImmediate(resolve));
    seen.push(told.length);
  }
  assert.ok(seen.includes(1), `a turn of the event loop after the first chunk, got ${seen}`);
});

test("a closed recording hands nothing on, asks for no room and tells nothing", async () => {
  let numAsked = 0;
  const room = async () => {
    numAsked += 1;
  };
  const { recording, told } = await openQuick([ramp], { room });
  await recording.start();
  await recording.close();
  await recording.close();
  await settle();
  assert.deepEqual(told, []);
  assert.equal(numAsked, 1);
});

test("what keeps the room from coming ends the recording", async () => {
  const lost = new Error("the connection is lost");
  const { recording, told } = await openQuick([ramp], { room: () => Promise.reject(lost) });
  await recording.start();
  await settle();
  assert.deepEqual(told, [lost]);
});

test("without sound there is nothing to mute, but the wish is kept", async () => {
  const { recording } = await openQuick([ramp]);
  recording.muted = true;
  assert.equal(recording.muted, true);
});

test("a URL is fetched", async () => {
  /** @type {string[]} */
  const fetched = [];
  const fetch = async (/** @type {string} */ url) => {
    fetched.push(url);
    return new Response("fLaC");
  };
  const source = "/sample.flac";
  const { decoded } = await openQuick([ramp], { source }, { fetch });
  assert.deepEqual(fetched, [source]);
  assert.equal(new TextDecoder().decode(decoded[0]), "fLaC");
});

/** @type {[string, Float32Array[] | null, object, RegExp][]} */
const UNUSABLE = [
  ["undecodable", null, {}, /^talk\.wav cannot be played .* WAV, MP3, M4A, FLAC, Ogg and WebM/],
  ["silent", [new Float32Array(9)], {}, /^talk\.wav holds only silence/],
  ["without a sample", [new Float32Array(0)], {}, /^talk\.wav is empty/],
];
for (const [what, channels, options, words] of UNUSABLE) {
  test(`a file ${what} is told of by name`, async () => {
    const opening = openQuick(channels, options);
    await assert.rejects(opening, { name: "RecordingError", message: words });
  });
}

/** @type {[string, () => Promise<Response>, RegExp][]} */
const UNREACHABLE = [
  [
    "that the server has not",
    async () => new Response("", { status: 404 }),
    /^a\.mp3 could not be read \(the server answered 404\)/,
  ],
  ["of no server", () => Promise.reject(new TypeError("Failed to fetch")), /\(Failed to fetch\)/],
  ["of no bytes", async () => new Response(""), /^a\.mp3 is empty/],
];
for (const [what, fetch, words] of UNREACHABLE) {
  test(`a URL ${what} is told of by name`, async () => {
    const opening = openQuick([ramp], { source: "/a.mp3" }, { fetch });
    await assert.rejects(opening, { name: "RecordingError", message: words });
  });
}
