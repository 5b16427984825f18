import assert from "node:assert/strict";
import { test } from "node:test";
import { CaptionSession } from "../../web_demo/caption_session.js";
import { ack, final, message, speechStarted } from "./support/messages.js";

/** @import { Effect } from "../../web_demo/caption_session.js" */

const SAMPLE_RATE = 8000;
const SECOND = () => new Int16Array(SAMPLE_RATE);

/** A session and the clock that it is told. */
class Played {
  now = 0;
  session;
  /** @type {Effect[]} */
  effects = [];

  /** @param {object} [start] */
  constructor(start = {}) {
    this.session = new CaptionSession({ start, sampleRate: SAMPLE_RATE, random: () => 0.5 });
    this.#take(this.session.open(this.now));
  }

  /** A session whose server takes audio. */
  static open() {
    const played = new Played();
    played.connect();
    return played;
  }

  connect() {
    this.opened();
    this.say(message("ready"));
  }

  opened() {
    this.#take(this.session.opened(this.now));
    return this.sent();
  }

  /** What can be sent now: text parsed, audio as its number of samples. */
  sent(bufferedBytes = 0) {
    const sent = [];
    let frame = this.session.nextFrame(bufferedBytes, this.now);
    for (; frame !== null; frame = this.session.nextFrame(bufferedBytes, this.now)) {
      sent.push(typeof frame === "string" ? JSON.parse(frame) : frame.length);
    }
    return sent;
  }

  /** @param {any} given */
  say(given) {
    return this.#take(this.session.receive(JSON.stringify(given), this.now));
  }

  /** @param {number} [code] */
  close(code = 1006) {
    return this.#take(this.session.closed(code, this.now));
  }

  /** @param {number} numSeconds */
  speak(numSeconds) {
    for (let second = 0; second < numSeconds; second += 1) {
      this.#take(this.session.append(SECOND(), this.now));
    }
  }

  /** Lets the time pass until the next attempt. */
  retry() {
    return this.wait(this.state.retryInMs ?? 0);
  }

  stop() {
    return this.#take(this.session.stop(this.now));
  }

  /** @param {Partial<import("../../web_demo/server_info.js").Refusal>} given */
  refuse(given) {
    const refusal = { status: 503, sentence: "Full.", retryAfterMs: 0, retry: true, ...given };
    return this.#take(this.session.refused(refusal, this.now));
  }

  /** Lets time pass, waking the session whenever it wants to be. @param {number} ms */
  wait(ms) {
    const until = this.now + ms;
    /** @type {Effect[]} */
    const effects = [];
    for (let wakes = 0; this.session.wakeAt <= until; wakes += 1) {
      assert.ok(wakes < 100, "the session wants to be woken without end");
      this.now = Math.max(this.now, this.session.wakeAt);
      effects.push(...this.#take(this.session.tick(this.now)));
      if (this.session.wakeAt <= this.now) {
        this.sent();
      }
    }
    this.now = until;
    return effects;
  }

  /** Kinds of effects, oldest first. */
  get kinds() {
    return this.effects.map(({ kind }) => kind);
  }

  /** The newest state. */
  get state() {
    const states = this.effects.flatMap((effect) =>
      effect.kind === "state" ? [effect.state] : [],
    );
    return /** @type {NonNullable<typeof states[0]>} */ (states.at(-1));
  }

  /** How it ended; undefined where it has not. */
  get failure() {
    const ends = this.effects.flatMap((effect) => (effect.kind === "end" ? [effect.failure] : []));
    assert.ok(ends.length < 2);
    return ends[0];
  }

  /** @param {Effect[]} effects */
  #take(effects) {
    this.effects.push(...effects);
    return effects;
  }
}

/** @param {Effect[]} effects */
const kindsOf = (effects) => effects.map(({ kind }) => kind);

test("start is sent once the websocket is open, audio once the server is ready", () => {
  const played = new Played({ language: "en" });
  assert.deepEqual(played.kinds, ["connect", "state"]);
  assert.equal(played.state.phase, "connecting");
  played.speak(1);
  assert.deepEqual(played.sent(), []);
  assert.deepEqual(played.opened(), [{ type: "start", language: "en", sample_rate: SAMPLE_RATE }]);
  const effects = played.say(message("ready"));
  assert.deepEqual(kindsOf(effects), ["state", "message"]);
  assert.equal(played.state.phase, "open");
  assert.deepEqual(played.sent(), [SAMPLE_RATE]);
});

test("a start that the protocol does not have ends in its sentence before anything is sent", () => {
  const played = new Played({ interim_interval_ms: 7 });
  assert.match(played.failure ?? "", /^start\.interim_interval_ms: got 7, takes .*\.$/);
  assert.equal(played.state.phase, "failed");
  assert.ok(!played.kinds.includes("connect"));
});

test("audio waits while the socket is full, and is tried again soon", () => {
  const played = Played.open();
  played.speak(3);
  const full = 2 * 2 * SAMPLE_RATE;
  assert.deepEqual(played.sent(full), []);
  assert.equal(played.session.wakeAt, played.now + 50);
  assert.deepEqual(played.sent(full - 1), [SAMPLE_RATE, SAMPLE_RATE, SAMPLE_RATE]);
});

test("there is room for two unsent seconds, and below what is held back from a dropped one", () => {
  const played = Played.open();
  played.speak(1);
  assert.equal(played.session.hasRoom, true);
  played.speak(1);
  assert.equal(played.session.hasRoom, false);
  played.sent();
  assert.equal(played.session.hasRoom, true);
  played.speak(88);
  played.sent();
  assert.equal(played.session.hasRoom, false);
  played.say(ack(90 * SAMPLE_RATE));
  assert.equal(played.session.hasRoom, true);
});

test("room comes again however long nothing is settled", () => {
  const played = Played.open();
  played.say(speechStarted(0)); // music, say: no words are ever found
  for (let second = 1; second <= 300; second += 1) {
    assert.equal(played.session.hasRoom, true);
    played.speak(1);
    played.sent();
    played.say(ack(second * SAMPLE_RATE));
  }
});

test("stop follows the last audio, and done ends it", () => {
  const played = Played.open();
  played.speak(1);
  played.stop();
  assert.equal(played.state.phase, "stopping");
  played.speak(1);
  assert.deepEqual(played.sent(), [SAMPLE_RATE, { type: "stop" }]);
  assert.deepEqual(played.sent(), []);
  const effects = played.say(message("done", { audio_s: 1, segments: 0 }));
  assert.deepEqual(kindsOf(effects), ["message", "disconnect", "state", "end"]);
  assert.equal(played.failure, null);
  assert.equal(played.state.phase, "done");
  assert.equal(played.session.wakeAt, Infinity);
  assert.deepEqual(played.close(1000), []);
});

test("a session that was never opened is done when it is stopped", () => {
  const session = new CaptionSession({ start: {}, sampleRate: SAMPLE_RATE });
  assert.deepEqual(kindsOf(session.stop(0)), ["disconnect", "state", "end"]);
  assert.deepEqual(session.open(0), []);
});

test("after a drop the audio without a final is sent again on another connection", () => {
  const played = Played.open();
  played.speak(5);
  played.sent();
  played.say(final(0, 0, 2));
  const effects = played.close();
  assert.deepEqual(kindsOf(effects), ["disconnect", "state"]);
  assert.equal(played.state.phase, "reconnecting");
  assert.equal(
    played.state.sentence,
    "The connection was lost. Trying again in 1 s; what you say is kept.",
  );
  assert.equal(played.state.retryInMs, 500);
  assert.equal(played.state.heldS, 3);
  assert.deepEqual(kindsOf(played.wait(500)), ["connect", "state"]);
  assert.equal(played.state.phase, "reconnecting");
  assert.deepEqual(played.opened(), [{ type: "start", sample_rate: SAMPLE_RATE }]);
  assert.deepEqual(kindsOf(played.say(message("ready"))), ["state"]);
  assert.equal(played.state.sentence, "Connected again.");
  assert.deepEqual(played.sent(), [SAMPLE_RATE, SAMPLE_RATE, SAMPLE_RATE]);
  const [told] = played.say(final(0, 0, 3));
  assert.ok(told.kind === "message" && told.message.type === "final");
  assert.deepEqual([told.message.segment, told.message.start, told.message.end], [1, 2, 5]);
});

test("waits grow until a server deals with audio again", () => {
  const played = Played.open();
  played.close();
  assert.equal(played.state.retryInMs, 500);
  played.wait(500);
  played.connect();
  played.close();
  assert.equal(played.state.retryInMs, 1000);
  played.wait(1000);
  played.connect();
  played.speak(1);
  played.sent();
  played.say(ack(SAMPLE_RATE));
  played.close();
  assert.equal(played.state.retryInMs, 500);
});

test("an attempt that fails is followed by the question why", () => {
  const played = new Played();
  assert.deepEqual(kindsOf(played.close()), ["probe"]);
  played.refuse({ sentence: "The server is full.", retryAfterMs: 3000 });
  assert.equal(
    played.state.sentence,
    "The server is full. Trying again in 3 s; what you say is kept.",
  );
  assert.deepEqual(kindsOf(played.wait(2999)), []);
  assert.deepEqual(kindsOf(played.wait(1)), ["connect", "state"]);
});

test("a refusal that will not change ends it", () => {
  const played = new Played();
  played.close();
  played.refuse({ status: 401, sentence: "A key is needed.", retry: false });
  assert.equal(played.failure, "A key is needed.");
  assert.equal(played.state.sentence, "A key is needed.");
});

test("a question that is not answered counts as unreachable, and its late answer as none", () => {
  const played = new Played();
  played.close();
  assert.deepEqual(kindsOf(played.wait(10_000)), ["disconnect", "state"]);
  assert.match(played.state.sentence, /^The server cannot be reached\./);
  assert.deepEqual(played.refuse({ retry: false }), []);
});

test("a server that does not answer in time counts as dropped", () => {
  const silent = new Played();
  assert.deepEqual(kindsOf(silent.wait(9_999)), []);
  assert.deepEqual(kindsOf(silent.wait(1)), ["disconnect", "state"]);
  const opened = new Played();
  opened.wait(9_000);
  opened.opened();
  assert.deepEqual(kindsOf(opened.wait(9_999)), []);
  assert.deepEqual(kindsOf(opened.wait(1)), ["disconnect", "state"]);
  assert.match(opened.state.sentence, /^The server does not answer\. Trying again/);
});

test("a network that vanished without a word counts as dropped", () => {
  const played = Played.open();
  played.speak(1);
  played.sent();
  assert.deepEqual(kindsOf(played.wait(15_000)), [], "no answer is owed for one second");
  played.speak(1);
  played.sent();
  assert.deepEqual(kindsOf(played.wait(29_999)), []);
  played.say(speechStarted(0));
  assert.deepEqual(kindsOf(played.wait(29_999)), []);
  assert.deepEqual(kindsOf(played.wait(1)), ["disconnect", "state"]);
  assert.match(played.state.sentence, /^The server does not answer/);
});

test("a server that has answered owes nothing, also on a later connection", () => {
  const played = Played.open();
  for (let connection = 0; connection < 2; connection += 1) {
    played.speak(2);
    played.sent();
    played.say(final(0, 0, 2));
    played.say(ack(2 * SAMPLE_RATE));
    assert.deepEqual(kindsOf(played.wait(100_000)), []);
    played.close();
    played.retry();
    played.connect();
  }
});

test("a server that was told to stop owes an answer", () => {
  const played = Played.open();
  played.stop();
  played.sent();
  assert.deepEqual(kindsOf(played.wait(29_999)), []);
  assert.deepEqual(kindsOf(played.wait(1)), ["disconnect", "state"]);
});

test("a server that says anything but ready still owes that", () => {
  const played = new Played();
  played.opened();
  played.wait(9_000);
  played.say(message("warning", { code: "lagging", message: "slow", interim_interval_ms: 800 }));
  assert.deepEqual(kindsOf(played.wait(1_000)), ["disconnect", "state"]);
});

test("keepalive is sent when nothing else was for 20 s", () => {
  const played = Played.open();
  played.now = 19_999;
  assert.deepEqual(played.sent(), []);
  assert.equal(played.session.wakeAt, 20_000);
  played.now = 20_000;
  assert.deepEqual(played.sent(), [{ type: "keepalive" }]);
  played.now = 30_000;
  played.speak(1);
  assert.deepEqual(played.sent(), [SAMPLE_RATE]);
  played.now = 49_999;
  assert.deepEqual(played.sent(), []);
  played.now = 50_000;
  assert.deepEqual(played.sent(), [{ type: "keepalive" }]);
});

test("a full socket does not keep the session awake for its keepalive", () => {
  const played = Played.open();
  played.speak(3);
  played.now = 20_000;
  played.sent(1_000_000);
  assert.equal(played.session.wakeAt, 20_050);
});

test("errors that another try would meet again end it in their words", () => {
  const fatal = ["bad_message", "not_started", "already_started", "message_too_large"];
  for (const code of [...fatal, "unknown_session"]) {
    const played = Played.open();
    const effects = played.say(message("error", { code, message: "start.x: got 1, takes 2" }));
    assert.deepEqual(kindsOf(effects), ["disconnect", "state", "end"]);
    assert.match(played.failure ?? "", /refused .*start\.x: got 1, takes 2.*Reload the page/);
  }
  const played = Played.open();
  played.say(message("error", { code: "unsupported", message: "start.task: got 'x'" }));
  assert.match(played.failure ?? "", /cannot do this: start\.task: got 'x'\. Change it/);
});

test("errors that pass are followed by another connection", () => {
  for (const code of ["idle_timeout", "engine_failure", "shutting_down"]) {
    const played = Played.open();
    const effects = played.say(message("error", { code }));
    assert.deepEqual(kindsOf(effects), ["disconnect", "state"]);
    assert.equal(played.state.phase, "reconnecting");
  }
});

test("an error that is not fatal and a warning are told", () => {
  const played = Played.open();
  const passing = message("error", { code: "engine_failure", fatal: false });
  assert.deepEqual(kindsOf(played.say(passing)), ["message"]);
  const lagging = { code: "lagging", message: "slow", interim_interval_ms: 800 };
  assert.deepEqual(kindsOf(played.say(message("warning", lagging))), ["message"]);
});

test("close codes that blame the page end it, all others do not", () => {
  for (const code of [1007, 1008, 1009]) {
    const played = Played.open();
    played.close(code);
    assert.match(played.failure ?? "", new RegExp(`close code ${code}`));
  }
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012]) {
    const played = Played.open();
    played.close(code);
    assert.equal(played.failure, undefined);
    const why = code === 1001 || code === 1012 ? /shutting down/ : /connection was lost/;
    assert.match(played.state.sentence, why);
  }
});

test("an engine that fails three times without a final is given up", () => {
  const played = new Played();
  /** @param {any[]} said */
  const failAfter = (...said) => {
    played.connect();
    for (const one of said) {
      played.say(one);
    }
    played.say(message("error", { code: "engine_failure" }));
    return played.failure;
  };
  assert.equal(failAfter(), undefined);
  played.retry();
  assert.equal(failAfter(), undefined);
  played.retry();
  assert.equal(failAfter(final(0, 0, 0)), undefined);
  played.retry();
  assert.equal(failAfter(), undefined);
  played.retry();
  assert.equal(failAfter(), undefined);
  played.retry();
  assert.match(failAfter() ?? "", /failed three times in a row/);
});

test("what cannot be read ends it, and names versions as the reason", () => {
  const played = Played.open();
  const effects = played.say({ ...final(0, 0, 1), start: "soon" });
  assert.deepEqual(effects[0], { kind: "disconnect", code: 4000 });
  assert.match(played.failure ?? "", /final\.start: got 'soon', takes a number.*versions\./);
  const binary = Played.open();
  binary.session.receive(new ArrayBuffer(1), 0);
  assert.deepEqual(binary.session.open(0), []);
  assert.equal(binary.session.wakeAt, Infinity);
});

test("text does not wait for a full socket", () => {
  const played = Played.open();
  played.stop();
  assert.deepEqual(played.sent(1_000_000), [{ type: "stop" }]);
});

test("a stop survives a drop: what is left is sent again, then stop", () => {
  const played = Played.open();
  played.speak(3);
  played.stop();
  played.sent();
  played.say(final(0, 0, 1));
  played.close();
  assert.match(played.state.sentence, /the last words are kept\.$/);
  played.wait(500);
  played.connect();
  assert.equal(played.state.phase, "stopping");
  assert.deepEqual(played.sent(), [SAMPLE_RATE, SAMPLE_RATE, { type: "stop" }]);
  assert.deepEqual(kindsOf(played.wait(20_000)), [], "it is there again, and may take its time");
  played.say(message("done", { audio_s: 2, segments: 0 }));
  assert.equal(played.failure, null);
});

test("a stop is given up when no server is there for 15 s", () => {
  const played = Played.open();
  played.speak(1);
  played.stop();
  played.sent();
  played.wait(20_000); // a connected server may take its time
  assert.equal(played.failure, undefined);
  played.close();
  played.wait(500);
  played.close();
  played.refuse({});
  played.wait(1000);
  played.wait(9000);
  assert.equal(played.failure, undefined);
  played.wait(4500);
  assert.match(played.failure ?? "", /did not come back within 15 s; the last words are lost/);
});

test("a stop does not go on for ever with a server that is ready and then leaves", () => {
  const played = Played.open();
  played.stop();
  played.sent();
  for (let attempt = 0; attempt < 20 && played.failure === undefined; attempt += 1) {
    played.close();
    for (let second = 0; second < 13 && !played.kinds.slice(-2).includes("connect"); second += 1) {
      played.wait(1000);
    }
    if (played.failure === undefined) {
      played.connect();
    }
  }
  assert.match(played.failure ?? "", /did not come back/);
});

test("a stop has its 15 s anew after each connection that got somewhere", () => {
  const played = Played.open();
  played.speak(9);
  played.stop();
  played.sent();
  for (let attempt = 0; attempt < 4; attempt += 1) {
    played.close();
    played.wait(500);
    played.connect();
    played.sent();
    played.say(ack(SAMPLE_RATE));
    played.wait(10_000);
  }
  assert.equal(played.failure, undefined);
});

test("an outage beyond the backlog is told in seconds, and later times are right all the same", () => {
  const played = Played.open();
  played.speak(10);
  played.sent();
  played.close();
  played.speak(120);
  assert.equal(played.state.lostS, 10);
  assert.match(played.state.sentence, / 10 s of audio had to be dropped\.$/);
  played.wait(500);
  played.connect();
  const [told] = played.say(speechStarted(1));
  assert.ok(told.kind === "message" && told.message.type === "speech_started");
  assert.equal(told.message.at, 11);
});

test("a connection that is so slow that audio is dropped is given up for another", () => {
  const played = Played.open();
  played.speak(120);
  assert.equal(played.state.phase, "open");
  played.speak(1);
  assert.equal(played.state.phase, "reconnecting");
  assert.match(played.state.sentence, /too slow .* 1 s of audio had to be dropped\.$/);
});

test("abort ends it at once, and only once", () => {
  const played = Played.open();
  played.speak(1);
  const effects = played.session.abort();
  assert.deepEqual(kindsOf(effects), ["disconnect", "state", "end"]);
  assert.deepEqual(played.session.abort(), []);
  assert.deepEqual(played.session.stop(0), []);
  assert.deepEqual(played.session.append(SECOND(), 0), []);
  assert.equal(played.session.nextFrame(0, 0), null);
  assert.equal(played.session.hasRoom, true);
});
