import assert from "node:assert/strict";
import { test } from "node:test";
import { atEnd, goingOn, TROUBLE } from "../../web_demo/stream_state.js";

const CONNECTED = {
  isOpen: true,
  isStopping: false,
  wasOpen: false,
  trouble: "",
  retryInMs: undefined,
  heldS: 1,
  lostS: 0,
};
const AWAY = { ...CONNECTED, isOpen: false };
const DROPPED = { ...AWAY, wasOpen: true, trouble: TROUBLE.lost };

test("each state has its phase and its sentence", () => {
  const cases = /** @type {[Parameters<typeof goingOn>[0], string, string][]} */ ([
    [AWAY, "connecting", "Connecting to the server."],
    [CONNECTED, "open", "Connected."],
    [{ ...CONNECTED, wasOpen: true }, "open", "Connected again."],
    [
      { ...DROPPED, retryInMs: 1700 },
      "reconnecting",
      "The connection was lost. Trying again in 2 s; what you say is kept.",
    ],
    [DROPPED, "reconnecting", "The connection was lost. Trying again now; what you say is kept."],
    [{ ...CONNECTED, isStopping: true }, "stopping", "Waiting for the last words."],
    [{ ...AWAY, isStopping: true }, "stopping", "Connecting to the server."],
    [
      { ...DROPPED, isStopping: true, retryInMs: 400 },
      "reconnecting",
      "The connection was lost. Trying again in 1 s; the last words are kept.",
    ],
  ]);
  for (const [stream, phase, sentence] of cases) {
    const state = goingOn(stream);
    assert.equal(state.phase, phase);
    assert.equal(state.sentence, sentence);
    assert.equal(state.heldS, 1);
    assert.equal(state.retryInMs, stream.retryInMs);
  }
});

test("only a state that waits says how long", () => {
  assert.equal("retryInMs" in goingOn(DROPPED), false);
});

test("audio that had to be dropped is told in whole seconds", () => {
  const { sentence, lostS } = goingOn({ ...CONNECTED, wasOpen: true, lostS: 11.2 });
  assert.equal(sentence, "Connected again. 12 s of audio had to be dropped.");
  assert.equal(lostS, 11.2);
  assert.match(goingOn({ ...DROPPED, lostS: 0.04 }).sentence, / 1 s of audio had to be dropped\.$/);
});

test("the end is good or says why not", () => {
  const figures = { heldS: 0, lostS: 0 };
  assert.deepEqual(atEnd(null, figures), {
    phase: "done",
    sentence: "Every word has arrived.",
    ...figures,
  });
  const failed = atEnd("It did not work.", { heldS: 1, lostS: 3 });
  assert.equal(failed.phase, "failed");
  assert.equal(failed.sentence, "It did not work. 3 s of audio had to be dropped.");
});
