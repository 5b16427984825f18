import assert from "node:assert/strict";
import { test } from "node:test";

import { CaptureError, listMicrophones, Microphone } from "../../web_demo/microphone.js";
import { chunkOf, fakeBrowser, settle } from "./support/fake_audio.js";

class FakeTrack extends EventTarget {
  label = "Desk microphone";
  enabled = true;
  isStopped = false;

  stop() {
    this.isStopped = true;
  }
}

/**
 * A browser whose getUserMedia refuses with `refusals`, one after the other, then gives a track.
 * @param {object} [options]
 * @param {{name: string, message?: string}[]} [options.refusals]
 * @param {string | null} [options.permission]  null: the browser has no such question
 * @param {Record<string, unknown>} [options.others]
 * @param {number} [options.deviceRate]
 */
function withMicrophone({ refusals = [], permission = "granted", others, deviceRate } = {}) {
  const track = new FakeTrack();
  /** @type {any[]} */
  const asked = [];
  const navigator = {
    mediaDevices: {
      getUserMedia: async (/** @type {any} */ constraints) => {
        asked.push(constraints);
        const refusal = refusals[asked.length - 1];
        if (refusal) throw Object.assign(new Error(refusal.message ?? ""), { name: refusal.name });
        return { getAudioTracks: () => [track] };
      },
    },
    permissions: {
      query: async () => {
        if (permission === null) throw new TypeError("'microphone' is no PermissionName");
        return { state: permission };
      },
    },
  };
  return { ...fakeBrowser({ navigator, ...others }, deviceRate), track, asked };
}

/** An open microphone, everything it told and everything a test may do to it. */
async function openMicrophone(options = {}) {
  const fake = withMicrophone();
  /** @type {unknown[]} */
  const told = [];
  const microphone = await Microphone.open(
    {
      onChunk: (chunk) => told.push(chunk),
      onEnd: (error) => told.push(error),
      ...options,
    },
    fake.browser,
  );
  const [context] = fake.contexts;
  const [worklet] = context.worklets;
  return { ...fake, microphone, told, context, worklet };
}

const ignore = () => {};

test("speech is asked for as recognisers like it", async () => {
  const { asked } = await openMicrophone();
  assert.deepEqual(asked, [
    {
      audio: {
        echoCancellation: true,
        noiseSuppression: false,
        autoGainControl: true,
        channelCount: 1,
      },
    },
  ]);
});

test("the device and the echo are a matter of choice", async () => {
  const { asked } = await openMicrophone({ deviceId: "desk", echoCancellation: false });
  assert.equal(asked.length, 1);
  assert.deepEqual(asked[0].audio.deviceId, { exact: "desk" });
  assert.equal(asked[0].audio.echoCancellation, false);
});

test("an empty device is the default one", async () => {
  const { asked } = await openMicrophone({ deviceId: "" });
  assert.equal("deviceId" in asked[0].audio, false);
});

for (const name of ["OverconstrainedError", "NotFoundError"]) {
  test(`a remembered device that is gone (${name}) is replaced by the default one`, async () => {
    const { browser, asked } = withMicrophone({ refusals: [{ name }] });
    await Microphone.open({ deviceId: "desk", onChunk: ignore }, browser);
    assert.equal(asked.length, 2);
    assert.equal("deviceId" in asked[1].audio, false);
    assert.equal(asked[1].audio.noiseSuppression, false);
  });
}

test("a refusal is not asked about twice", async () => {
  const { browser, asked } = withMicrophone({ refusals: [{ name: "NotAllowedError" }] });
  const opening = Microphone.open({ deviceId: "desk", onChunk: ignore }, browser);
  await assert.rejects(opening, { kind: "denied" });
  assert.equal(asked.length, 1);
});

/** @type {[string, string, string | null, string, RegExp][]} */
const REFUSALS = [
  [
    "NotAllowedError",
    "Permission denied",
    "denied",
    "denied",
    /blocks .* settings beside the address/,
  ],
  ["NotAllowedError", "Permission dismissed", "prompt", "denied", /choose Allow when/],
  ["NotAllowedError", "", null, "denied", /start again, or see the settings/],
  [
    "NotAllowedError",
    "Permission denied by system",
    "prompt",
    "denied",
    /system .* privacy settings/,
  ],
  ["SecurityError", "", "prompt", "denied", /not allowed/],
  ["NotFoundError", "", "granted", "missing", /connect one/],
  ["OverconstrainedError", "", "granted", "missing", /connect one/],
  ["NotReadableError", "", "granted", "busy", /close other programs/],
  ["AbortError", "", "granted", "busy", /close other programs/],
  ["TypeError", "no such thing", "granted", "failed", /TypeError: no such thing/],
];
for (const [name, message, permission, kind, words] of REFUSALS) {
  test(`${name} "${message}" with permission ${permission} is "${kind}" in words`, async () => {
    const { browser, contexts } = withMicrophone({ refusals: [{ name, message }], permission });
    const opening = Microphone.open({ onChunk: ignore }, browser);
    await assert.rejects(opening, (/** @type {CaptureError} */ error) => {
      assert.ok(error instanceof CaptureError);
      assert.equal(error.kind, kind);
      assert.match(error.message, words);
      assert.equal(/** @type {Error} */ (error.cause).name, name);
      return true;
    });
    assert.deepEqual(contexts, []);
  });
}

for (const [isSecureContext, kind, words] of /** @type {[boolean, string, RegExp][]} */ ([
  [false, "insecure", /https or http:\/\/localhost/],
  [true, "unsupported", /current Chromium, Firefox or Safari/],
])) {
  for (const mediaDevices of [undefined, {}]) {
    const what = mediaDevices ? "no getUserMedia" : "no mediaDevices";
    test(`${what} on a page that is ${isSecureContext ? "" : "not "}secure`, async () => {
      const { browser } = fakeBrowser({ navigator: { mediaDevices }, isSecureContext });
      const opening = Microphone.open({ onChunk: ignore }, browser);
      await assert.rejects(opening, { kind, message: words });
    });
  }
}

test("where the sound cannot be taken out of the browser, the device is given back", async () => {
  const fake = withMicrophone({
    others: {
      AudioWorkletNode: class {
        constructor() {
          throw new DOMException("no such processor", "AbortError");
        }
      },
    },
  });
  const opening = Microphone.open({ onChunk: ignore }, fake.browser);
  await assert.rejects(opening, { kind: "failed", message: /AbortError: no such processor/ });
  assert.equal(fake.track.isStopped, true);
  assert.equal(fake.contexts[0].state, "closed");
});

test("the microphone flows into the tap and nowhere else", async () => {
  const { context, worklet, microphone } = await openMicrophone();
  const [source] = context.sources;
  assert.deepEqual(source.connectedTo, [worklet]);
  assert.equal(microphone.sampleRate, context.sampleRate);
  assert.equal(microphone.label, "Desk microphone");
});

test("a device beyond 48 kHz is recorded at 48 kHz", async () => {
  const { browser } = withMicrophone({ deviceRate: 96_000 });
  const microphone = await Microphone.open({ onChunk: ignore }, browser);
  assert.equal(microphone.sampleRate, 48_000);
});

test("chunks are handed on", async () => {
  const { worklet, told } = await openMicrophone();
  worklet.post(chunkOf(1, 2));
  worklet.post(chunkOf(3, 4));
  await settle();
  assert.deepEqual(told, [chunkOf(1, 2), chunkOf(3, 4)]);
});

test("a muted microphone stays open and gives silence", async () => {
  const { microphone, track, context } = await openMicrophone();
  assert.equal(microphone.muted, false);
  microphone.muted = true;
  assert.equal(track.enabled, false);
  assert.equal(microphone.muted, true);
  assert.equal(context.state, "running");
  microphone.muted = false;
  assert.equal(track.enabled, true);
  assert.equal(track.isStopped, false);
});

test("close hands on the last chunk, then gives everything back", async () => {
  const { microphone, worklet, track, context, told } = await openMicrophone();
  worklet.rest = chunkOf(9);
  await microphone.close();
  assert.deepEqual(told, [chunkOf(9)]);
  assert.deepEqual(worklet.told, ["flush", "close"]);
  assert.deepEqual(context.sources[0].connectedTo, []);
  assert.equal(track.isStopped, true);
  assert.equal(context.state, "closed");
});

test("closing twice is closing once", async () => {
  const { microphone, worklet } = await openMicrophone();
  await Promise.all([microphone.close(), microphone.close()]);
  await microphone.close();
  assert.deepEqual(worklet.told, ["flush", "close"]);
});

test("a microphone that is unplugged is told of after its last chunk", async () => {
  const { worklet, track, context, told } = await openMicrophone();
  worklet.rest = chunkOf(9);
  track.dispatchEvent(new Event("ended"));
  await settle();
  const [chunk, error] = told;
  assert.deepEqual(chunk, chunkOf(9));
  assert.ok(error instanceof CaptureError);
  assert.equal(error.kind, "missing");
  assert.match(error.message, /^Desk microphone is gone: /);
  assert.equal(context.state, "closed");
});

test("the end is told of once", async () => {
  const { track, context, timers, told } = await openMicrophone();
  context.enter("interrupted");
  track.dispatchEvent(new Event("ended"));
  track.dispatchEvent(new Event("ended"));
  timers.ring();
  await settle();
  assert.equal(told.length, 1);
});

test("sound that the browser stops for good is told of", async () => {
  const { context, timers, told, track } = await openMicrophone();
  context.enter("interrupted");
  timers.ring();
  await settle();
  timers.ring(); // nor does a stopped worklet answer
  await settle();
  const [error] = told;
  assert.ok(error instanceof CaptureError);
  assert.equal(error.kind, "failed");
  assert.match(error.message, /stopped the sound of this page/);
  assert.equal(track.isStopped, true);
});

test("after close nothing more is told", async () => {
  const { microphone, worklet, track, context, timers, told } = await openMicrophone();
  const closing = microphone.close();
  track.dispatchEvent(new Event("ended"));
  await closing;
  worklet.post(chunkOf(1));
  context.enter("interrupted");
  timers.ring();
  await settle();
  assert.deepEqual(told, []);
  assert.equal(context.resumed, 0);
});

// --- the list -----------------------------------------------------------------------------------

/** @param {{kind: string, deviceId: string, label: string}[]} devices */
function listOf(devices) {
  const navigator = { mediaDevices: { enumerateDevices: async () => devices } };
  return listMicrophones(/** @type {any} */ ({ navigator }));
}

test("microphones are listed by name, once each, and nothing else is", async () => {
  const list = await listOf([
    { kind: "audioinput", deviceId: "default", label: "Default - Desk" },
    { kind: "audioinput", deviceId: "communications", label: "Communications - Desk" },
    { kind: "audioinput", deviceId: "a1", label: "Desk" },
    { kind: "videoinput", deviceId: "b2", label: "Camera" },
    { kind: "audiooutput", deviceId: "c3", label: "Loudspeakers" },
    { kind: "audioinput", deviceId: "d4", label: "Headphones" },
  ]);
  assert.deepEqual(list, [
    { id: "a1", label: "Desk" },
    { id: "d4", label: "Headphones" },
  ]);
});

test("microphones without names are numbered", async () => {
  const list = await listOf([
    { kind: "videoinput", deviceId: "", label: "" },
    { kind: "audioinput", deviceId: "a1", label: "" },
    { kind: "audioinput", deviceId: "d4", label: "" },
  ]);
  assert.deepEqual(list, [
    { id: "a1", label: "Microphone 1" },
    { id: "d4", label: "Microphone 2" },
  ]);
});

test("a page that is not secure has no microphones", async () => {
  assert.deepEqual(await listMicrophones(/** @type {any} */ ({ navigator: {} })), []);
});
