import assert from "node:assert/strict";
import { test } from "node:test";
import { Backlog } from "../../web_demo/backlog.js";
import { CaptionConnection } from "../../web_demo/caption_connection.js";
import { ack, message } from "./support/messages.js";

const SAMPLE_RATE = 8000;
const READY = message("ready");

/** @param {number} [numSeconds] of audio that wait */
function connect(numSeconds = 0) {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE });
  backlog.append(new Int16Array(numSeconds * SAMPLE_RATE));
  const options = { startFrame: "START", backlog, sampleRate: SAMPLE_RATE };
  return { backlog, connection: new CaptionConnection(options, 0) };
}

test("nothing is sent before the websocket is open, and only start before ready", () => {
  const { connection } = connect(1);
  assert.equal(connection.nextFrame(0, true, 0), null);
  assert.equal(connection.isOpened, false);
  connection.opened(0);
  assert.equal(connection.isOpened, true);
  assert.equal(connection.nextFrame(0, true, 0), "START");
  assert.equal(connection.nextFrame(0, true, 0), null);
  assert.equal(connection.isReady, false);
  connection.receive(READY, 0);
  assert.equal(connection.isReady, true);
  assert.equal(connection.nextFrame(0, true, 0)?.length, SAMPLE_RATE);
  assert.equal(connection.nextFrame(0, true, 0), '{"type":"stop"}');
  assert.equal(connection.nextFrame(0, true, 0), null);
});

test("it has ten seconds to open, then ten to be ready, then none to keep", () => {
  const { connection } = connect();
  assert.equal(connection.wakeAt, 10_000);
  assert.equal(connection.isDead(9_999), false);
  assert.equal(connection.isDead(10_000), true);
  connection.opened(4000);
  assert.equal(connection.wakeAt, 14_000);
  connection.receive(READY, 5000);
  assert.equal(connection.isDead(1_000_000), false);
  assert.equal(connection.wakeAt, 25_000, "for the keepalive");
});

test("audio waits while the socket is full", () => {
  const { connection } = connect(1);
  connection.opened(0);
  connection.nextFrame(0, false, 0);
  connection.receive(READY, 0);
  assert.equal(connection.nextFrame(4 * SAMPLE_RATE, false, 100), null);
  assert.equal(connection.wakeAt, 150);
  assert.equal(connection.nextFrame(4 * SAMPLE_RATE - 1, false, 150)?.length, SAMPLE_RATE);
  assert.equal(connection.wakeAt, 20_150);
});

test("an answer is owed for audio that is not acknowledged, counted from its first sample", () => {
  const { backlog, connection } = connect(3);
  while (backlog.takeUnsent()) {} // of another connection
  connection.opened(0);
  connection.nextFrame(0, false, 0);
  connection.receive(READY, 0);
  backlog.append(new Int16Array(2 * SAMPLE_RATE));
  connection.nextFrame(0, false, 1000);
  assert.equal(connection.isDead(100_000), false);
  connection.nextFrame(0, false, 2000);
  assert.equal(connection.isDead(31_999), false);
  assert.equal(connection.isDead(32_000), true);
  connection.receive(ack(SAMPLE_RATE), 3000);
  assert.equal(connection.isDead(100_000), false);
});
