import assert from "node:assert/strict";
import { test } from "node:test";
import { CaptionStream, StreamError } from "../../web_demo/caption_stream.js";
import { FakeClock } from "./support/fake_clock.js";
import { FakeNetwork } from "./support/fake_network.js";
import { FakeRecogniser } from "./support/fake_recogniser.js";
import { message, speechStarted } from "./support/messages.js";
import { seededRandom } from "./support/seeded_random.js";

/** @import { Final, ServerMessage } from "../../web_demo/protocol.js" */
/** @import { StreamState } from "../../web_demo/caption_stream.js" */

const SAMPLE_RATE = 8000;
const CHUNK_MS = 40;
const UNREACHABLE = { status: 0, sentence: "Not there.", retryAfterMs: 0, retry: true };

/** A stream, a network and a server, in a time of their own. */
class World {
  clock = new FakeClock();
  /** @type {ServerMessage[]} */
  messages = [];
  /** @type {StreamState[]} */
  states = [];
  refusal = UNREACHABLE;
  server;
  network;
  stream;

  /**
   * @param {number} [seed]
   * @param {Partial<ConstructorParameters<typeof CaptionStream>[0]>} [options]
   * @param {number} [speed] of the server
   */
  constructor(seed = 0, options = {}, speed = 20) {
    const { clock } = this;
    this.random = seededRandom(seed);
    const { random } = this;
    this.server = new FakeRecogniser({ clock, random, sampleRate: SAMPLE_RATE, speed });
    this.network = new FakeNetwork({ clock, random, accept: this.server.accept });
    this.stream = new CaptionStream({
      url: "ws://host/v1/stream",
      sampleRate: SAMPLE_RATE,
      onMessage: (told) => this.messages.push(told),
      onState: (state) => this.states.push(state),
      probe: async () => this.refusal,
      WebSocket: this.network.WebSocket,
      now: clock.now,
      setTimeout: clock.setTimeout,
      clearTimeout: clock.clearTimeout,
      random,
      ...options,
    });
  }

  /** @returns {Final[]} */
  get finals() {
    return this.messages.flatMap((told) => (told.type === "final" ? [told] : []));
  }

  get phases() {
    return this.states.map(({ phase }) => phase);
  }

  /** As a microphone does, in real time. @param {Int16Array} audio */
  async speak(audio) {
    const chunk = (CHUNK_MS * SAMPLE_RATE) / 1000;
    for (let start = 0; start < audio.length; start += chunk) {
      this.stream.send(audio.slice(start, start + chunk));
      await this.clock.sleep(CHUNK_MS);
    }
  }

  /** As a recording does, as fast as there is room. @param {Int16Array} audio */
  async play(audio) {
    const chunk = 0.2 * SAMPLE_RATE;
    for (let start = 0; start < audio.length; start += chunk) {
      await this.stream.room();
      this.stream.send(audio.slice(start, start + chunk));
    }
  }

  /** Every spoken sample was delivered in one final, in order, at its place. @param {Int16Array} audio */
  checkDelivered(audio) {
    let end = 0;
    for (const [index, final] of this.finals.entries()) {
      const from = Math.round(final.start * SAMPLE_RATE);
      const to = Math.round(final.end * SAMPLE_RATE);
      assert.equal(final.segment, index);
      assert.ok(from >= end, "no two finals share a sample");
      assertSilent(audio.subarray(end, from));
      assert.deepEqual(this.server.samplesOf(final.text), audio.slice(from, to));
      end = to;
    }
    assertSilent(audio.subarray(end));
    assert.equal(this.states.at(-1)?.lostS, 0);
  }

  /** What the page sees is one session. */
  checkContinuous() {
    assert.deepEqual(
      this.messages.map(({ seq }) => seq),
      this.messages.map((_, index) => index + 1),
    );
    assert.equal(this.messages.filter(({ type }) => type === "ready").length, 1);
    assert.equal(this.messages.at(-1)?.type, "done");
    const speech = this.messages.filter(({ type }) => type.startsWith("speech_"));
    for (const [index, { type }] of speech.entries()) {
      assert.equal(type, index % 2 === 0 ? "speech_started" : "speech_stopped");
    }
  }
}

/** @param {Int16Array} samples */
function assertSilent(samples) {
  assert.ok(
    samples.every((sample) => sample === 0),
    "speech was left out",
  );
}

/**
 * Speech and silence in turn; each sample of speech tells where it lies.
 * @param {number} durationS
 * @param {() => number} random
 */
function conversation(durationS, random) {
  const audio = new Int16Array(durationS * SAMPLE_RATE);
  let position = Math.floor(2 * SAMPLE_RATE * random());
  while (position < audio.length) {
    const longest = random() < 0.2 ? 50 : 6;
    const end = position + Math.floor((0.1 + longest * random()) * SAMPLE_RATE);
    for (; position < Math.min(end, audio.length); position += 1) {
      audio[position] = 1 + (position % 32_749);
    }
    position += Math.floor((0.1 + (random() < 0.1 ? 50 : 3) * random()) * SAMPLE_RATE);
  }
  return audio;
}

test("a stream offers its key, and takes what comes as bytes or text", async () => {
  const world = new World(0, { key: "k3y" });
  world.stream.open();
  assert.equal(world.network.socket.url, "ws://host/v1/stream");
  assert.deepEqual(world.network.socket.offered, ["asr.json.v1", "bearer.k3y"]);
  assert.equal(world.network.socket.binaryType, "arraybuffer");
});

test("a key that no browser can send ends the stream in its sentence", async () => {
  const world = new World(0, { key: "a key" });
  world.stream.open();
  assert.deepEqual(world.phases, ["connecting", "failed"]);
  assert.match(world.states[1].sentence, /^the API key has ' ' in it/i);
  await assert.rejects(world.stream.stop(), StreamError);
});

test("words are delivered before stop resolves, and the connection is closed after", async () => {
  const world = new World();
  const audio = conversation(3, world.random);
  world.stream.send(audio);
  world.stream.open();
  await world.clock.runUntil(world.stream.stop());
  world.checkDelivered(audio);
  assert.deepEqual(world.phases, ["connecting", "stopping", "stopping", "done"]);
  assert.equal(world.network.socket.closedWith, 1000);
  await world.clock.run(60_000);
  assert.equal(world.network.sockets.length, 1, "nothing is tried any more");
});

test("stop rejects with the reason why the last words are lost", async () => {
  const world = new World();
  world.stream.open();
  await world.clock.run(1000);
  world.stream.send(conversation(3, world.random));
  world.network.isUp = false;
  world.network.socket.drop();
  await assert.rejects(world.clock.runUntil(world.stream.stop()), {
    name: "StreamError",
    message: "The server did not come back within 15 s; the last words are lost.",
  });
  assert.equal(world.phases.at(-1), "failed");
});

test("a refusal that will not change is told, also to who stops later", async () => {
  const world = new World();
  world.network.isUp = false;
  world.refusal = { status: 401, sentence: "A key is needed.", retryAfterMs: 0, retry: false };
  world.stream.open();
  await world.clock.run(100);
  assert.deepEqual(world.phases, ["connecting", "failed"]);
  await assert.rejects(world.stream.stop(), { message: "A key is needed." });
});

test("abort closes the connection and rejects what waits for the last words", async () => {
  const world = new World();
  world.stream.open();
  await world.clock.run(1000);
  const ended = world.stream.stop();
  world.stream.abort();
  await assert.rejects(ended, StreamError);
  assert.equal(world.network.socket.closedWith, 1000);
});

test("what cannot be read closes the connection with a code of its own", async () => {
  const world = new World();
  world.stream.open();
  await world.clock.run(1000);
  world.network.socket.say({ type: "nonsense" });
  await world.clock.run(1000);
  assert.equal(world.network.socket.closedWith, 4000);
  assert.match(world.states.at(-1)?.sentence ?? "", /different versions/);
});

test("a connection that was given up is not listened to any more", async () => {
  const world = new World();
  world.stream.open();
  await world.clock.run(1000);
  const [old] = world.network.sockets;
  old.isDead = true;
  world.stream.send(new Int16Array(2 * SAMPLE_RATE));
  await world.clock.run(40_000);
  assert.deepEqual(world.phases, ["connecting", "open", "reconnecting", "reconnecting", "open"]);
  assert.equal(old.closedWith, 1000);
  const numMessages = world.messages.length;
  old.onmessage({ data: JSON.stringify(speechStarted(1)) });
  old.onclose({ code: 1006 });
  assert.equal(world.messages.length, numMessages);
  assert.equal(world.phases.at(-1), "open");
});

test("no more is handed to a socket than two seconds of audio", async () => {
  const world = new World();
  world.stream.open();
  await world.clock.run(1000);
  world.stream.send(new Int16Array(60 * SAMPLE_RATE));
  const { bufferedAmount } = world.network.socket;
  assert.equal(bufferedAmount, 2 * 2 * SAMPLE_RATE);
  await world.clock.run(10_000);
  const numSent = world.network.socket.sent.filter((frame) => typeof frame !== "string").length;
  assert.equal(numSent, 60);
});

test("room comes when audio was passed on, and when nothing is kept any more", async () => {
  const world = new World();
  await world.stream.room();
  world.stream.send(new Int16Array(3 * SAMPLE_RATE));
  const room = world.stream.room();
  world.stream.open();
  await world.clock.runUntil(room);
  assert.equal(world.phases.at(-1), "open");
  const away = new World();
  away.stream.send(new Int16Array(3 * SAMPLE_RATE));
  const never = away.stream.room();
  away.stream.abort();
  await never;
});

test("a callback that throws is reported and does not stop the stream", async () => {
  /** @type {unknown[]} */
  const reported = [];
  const broken = new Error("broken");
  const world = new World(0, {
    onMessage: () => {
      throw broken;
    },
    reportError: (error) => reported.push(error),
  });
  world.stream.send(conversation(3, world.random));
  world.stream.open();
  await world.clock.runUntil(world.stream.stop());
  assert.ok(reported.length > 2);
  assert.ok(reported.every((error) => error === broken));
});

test("what a callback asks for is done after it has returned", async () => {
  /** @type {string[]} */
  const log = [];
  const world = new World(0, {
    onMessage: ({ type }) => {
      world.stream.abort();
      log.push(type);
    },
    onState: ({ phase }) => log.push(phase),
  });
  world.stream.open();
  await world.clock.run(1000);
  assert.deepEqual(log, ["connecting", "open", "ready", "failed"]);
});

test("a warning reaches the page", async () => {
  const world = new World();
  world.stream.open();
  await world.clock.run(1000);
  const lagging = { code: "lagging", message: "slow", interim_interval_ms: 800 };
  world.network.socket.say(message("warning", lagging));
  await world.clock.run(1000);
  assert.equal(world.messages.at(-1)?.type, "warning");
});

/** @type {((world: World) => Promise<void>)[]} */
const TROUBLES = [
  async ({ network }) => network.socket.drop(),
  async ({ network }) => network.socket.drop(1001),
  async ({ server }) => server.session?.finish({ type: "error", code: "shutting_down" }),
  async ({ server }) => server.session?.finish({ type: "error", code: "idle_timeout" }),
  async (world) => {
    world.network.socket.drop();
    await outage(world);
  },
  async (world) => {
    world.server.session?.finish({ type: "error", code: "shutting_down" });
    await outage(world);
  },
  async ({ network, clock }) => {
    network.socket.isDead = true; // nobody is told
    await clock.sleep(1);
  },
  async ({ server, clock }) => {
    server.session?.fail("engine_failure");
    await clock.sleep(30_000); // three in a row would be the end
  },
];

/** @param {World} world */
async function outage({ network, clock, random }) {
  network.isUp = false;
  await clock.sleep(15_000 * random());
  network.isUp = true;
}

/** @param {World} world @param {{isOver: boolean}} life */
async function causeTrouble(world, life) {
  const { clock, random } = world;
  for (;;) {
    await clock.sleep(20_000 * random() * random());
    if (life.isOver) {
      return;
    }
    await TROUBLES[Math.floor(TROUBLES.length * random())](world);
  }
}

test("whatever happens to the network, every spoken sample is in one final, in order", async () => {
  let numConnections = 0;
  for (let seed = 1; seed <= 20; seed += 1) {
    const world = new World(seed);
    const audio = conversation(100, world.random);
    const life = { isOver: false };
    const play = async () => {
      world.stream.open();
      const trouble = causeTrouble(world, life);
      await world.speak(audio);
      life.isOver = true;
      const ended = world.stream.stop();
      world.network.socket.drop();
      await Promise.all([ended, trouble]);
    };
    await world.clock.runUntil(play());
    world.checkDelivered(audio);
    world.checkContinuous();
    numConnections += world.network.sockets.length;
  }
  assert.ok(numConnections > 100, `only ${numConnections} connections: there was little trouble`);
});

test("a recording that is sent as fast as there is room survives the same", async () => {
  for (let seed = 1; seed <= 4; seed += 1) {
    const world = new World(seed, {}, 40);
    const audio = conversation(400, world.random);
    const life = { isOver: false };
    const play = async () => {
      world.stream.open();
      const trouble = causeTrouble(world, life);
      await world.play(audio);
      life.isOver = true;
      await Promise.all([world.stream.stop(), trouble]);
    };
    await world.clock.runUntil(play());
    world.checkDelivered(audio);
    world.checkContinuous();
  }
});
