import assert from "node:assert/strict";
import { test } from "node:test";

import { keepRunning, openContext, openTap } from "../../web_demo/pcm_tap.js";
import { chunkOf, fakeBrowser, settle } from "./support/fake_audio.js";

/** A tap of a running context, what it handed on, and what a test may do to it. */
async function openFakeTap() {
  const { browser, contexts, timers } = fakeBrowser();
  /** @type {unknown[]} */
  const chunks = [];
  const tap = await openTap(openContext(browser), (chunk) => chunks.push(chunk), browser);
  const [context] = contexts;
  const [worklet] = context.worklets;
  return { tap, chunks, context, worklet, timers };
}

test("a context has the rate of the device", () => {
  const { browser, contexts } = fakeBrowser({}, 44_100);
  assert.equal(openContext(browser).sampleRate, 44_100);
  assert.deepEqual(
    contexts.map(({ options }) => options),
    [{ latencyHint: "interactive" }],
  );
});

test("48 kHz are as much as the protocol takes, and stay", () => {
  const { browser, contexts } = fakeBrowser({}, 48_000);
  assert.equal(openContext(browser).sampleRate, 48_000);
  assert.equal(contexts.length, 1);
});

test("a device beyond 48 kHz is heard at 48 kHz, by a context of its own", () => {
  const { browser, contexts } = fakeBrowser({}, 96_000);
  assert.equal(openContext(browser).sampleRate, 48_000);
  assert.deepEqual(
    contexts.map(({ state }) => state),
    ["closed", "running"],
  );
});

test("the tap loads the worklet from beside itself", async () => {
  const { tap, context, worklet } = await openFakeTap();
  const beside = new URL("../../web_demo/pcm_worklet.js", import.meta.url);
  assert.deepEqual(
    context.modules.map(({ href }) => href),
    [beside.href],
  );
  assert.equal(worklet.name, "pcm-worklet");
  assert.equal(tap.node, worklet);
});

test("chunks are handed on in order", async () => {
  const { chunks, worklet } = await openFakeTap();
  worklet.post(chunkOf(1));
  worklet.post(chunkOf(2));
  await settle();
  assert.deepEqual(chunks, [chunkOf(1), chunkOf(2)]);
});

test("flush resolves after the last chunk was handed on", async () => {
  const { tap, chunks, worklet } = await openFakeTap();
  worklet.rest = chunkOf(7);
  await tap.flush();
  assert.deepEqual(chunks, [chunkOf(7)]);
});

test("flush waits for the worklet, but not for one that was stopped", async () => {
  const { tap, worklet, timers } = await openFakeTap();
  worklet.deaf = true;
  let isFlushed = false;
  void tap.flush().then(() => {
    isFlushed = true;
  });
  await settle();
  assert.equal(isFlushed, false);
  assert.deepEqual(timers.delaysMs, [1000]);
  timers.ring();
  await settle();
  assert.equal(isFlushed, true);
});

test("a closed tap hands nothing on and lets the processor go", async () => {
  const { tap, chunks, worklet } = await openFakeTap();
  tap.close();
  worklet.post(chunkOf(1));
  await settle();
  assert.deepEqual(chunks, []);
  assert.deepEqual(worklet.told, ["close"]);
});

// --- keepRunning --------------------------------------------------------------------------------

/** @param {AudioContextState} state */
function careFor(state) {
  const { browser, timers } = fakeBrowser();
  const context = new browser.AudioContext({ latencyHint: "interactive" });
  context.state = state;
  const stops = { count: 0 };
  const leave = keepRunning(
    context,
    () => {
      stops.count += 1;
    },
    browser,
  );
  return { context, timers, stops, leave };
}

test("a running context is left alone", () => {
  const { context, timers } = careFor("running");
  assert.equal(context.resumed, 0);
  assert.deepEqual(timers.delaysMs, []);
});

for (const state of /** @type {const} */ (["suspended", "interrupted"])) {
  test(`a context that is ${state} is resumed, and all is well when it runs`, async () => {
    const { context, timers, stops } = careFor("running");
    context.enter(state);
    assert.equal(context.resumed, 1);
    assert.deepEqual(timers.delaysMs, [5000]);
    context.enter("running");
    assert.deepEqual(timers.delaysMs, []);
    await settle();
    assert.equal(stops.count, 0);
  });
}

test("a context that cannot be resumed is told of once", async () => {
  const { context, timers, stops } = careFor("suspended");
  context.enter("interrupted");
  context.enter("suspended");
  assert.equal(context.resumed, 3);
  assert.deepEqual(timers.delaysMs, [5000]);
  timers.ring();
  assert.equal(stops.count, 1);
  context.enter("interrupted");
  assert.equal(context.resumed, 3);
  assert.deepEqual(timers.delaysMs, []);
  await settle();
});

test("a second interruption has its own time", () => {
  const { context, timers } = careFor("suspended");
  context.enter("running");
  context.enter("interrupted");
  assert.deepEqual(timers.delaysMs, [5000]);
});

test("a context that was closed is not resumed", () => {
  const { context, timers } = careFor("suspended");
  context.enter("closed");
  assert.equal(context.resumed, 1);
  assert.deepEqual(timers.delaysMs, []);
});

test("where the care was ended nothing is resumed or told", () => {
  const { context, timers, leave } = careFor("suspended");
  leave();
  assert.deepEqual(timers.delaysMs, []);
  context.enter("interrupted");
  assert.equal(context.resumed, 1);
});
