import assert from "node:assert/strict";
import { test } from "node:test";

import { PcmChunker } from "../../web_demo/pcm_worklet.js";

/** @typedef {import("../../web_demo/pcm_worklet.js").Chunk} Chunk */

/**
 * @param {number} chunkSamples
 * @param {(chunker: PcmChunker) => void} use
 */
function chunked(chunkSamples, use) {
  /** @type {Chunk[]} */
  const chunks = [];
  use(new PcmChunker(chunkSamples, (chunk) => chunks.push(chunk)));
  return chunks;
}

/** @param {number[]} values */
function samplesOf(...values) {
  const [chunk] = chunked(values.length, (it) => it.push([Float32Array.from(values)]));
  return [...chunk.pcm];
}

test("every 16-bit sample comes through as it was", () => {
  const all = Int16Array.from({ length: 65536 }, (_, index) => index - 32768);
  const [{ pcm }] = chunked(65536, (it) => it.push([Float32Array.from(all, (it) => it / 32768)]));
  assert.deepEqual(pcm, all);
});

test("samples are rounded to the nearest step", () => {
  assert.deepEqual(samplesOf(1.4 / 32768, 1.6 / 32768, -1.4 / 32768, -1.6 / 32768), [1, 2, -1, -2]);
});

test("samples beyond full scale are clipped and never wrap around", () => {
  assert.deepEqual(samplesOf(1, 1.5, 1e9, Number.POSITIVE_INFINITY), [32767, 32767, 32767, 32767]);
  assert.deepEqual(samplesOf(-1, -1.5, -1e9, -Infinity), [-32768, -32768, -32768, -32768]);
});

test("what is no number is silence", () => {
  assert.deepEqual(samplesOf(0.5, Number.NaN, 0.25), [16384, 0, 8192]);
});

test("channels are averaged", () => {
  const left = Float32Array.of(0.5, 1, -0.5);
  const right = Float32Array.of(0.25, -1, -0.5);
  const [{ pcm }] = chunked(3, (it) => it.push([left, right]));
  assert.deepEqual([...pcm], [12288, 0, -16384]);
});

test("chunks are the same however the sound came in pieces", () => {
  const sound = Float32Array.from({ length: 1000 }, (_, index) => Math.sin(index / 7));
  const whole = chunked(96, (it) => it.push([sound]));
  for (const piece of [1, 7, 96, 128, 999]) {
    const pieces = chunked(96, (it) => {
      for (let at = 0; at < sound.length; at += piece) it.push([sound.subarray(at, at + piece)]);
    });
    assert.deepEqual(pieces, whole, `in pieces of ${piece}`);
  }
  assert.deepEqual(
    whole.map(({ pcm }) => pcm.length),
    Array(10).fill(96),
  );
});

test("every chunk has a buffer of its own and no larger than itself", () => {
  const chunks = chunked(4, (it) => {
    it.push([new Float32Array(10).fill(0.5)]);
    it.flush();
  });
  assert.deepEqual(
    chunks.map(({ pcm }) => pcm.buffer.byteLength),
    [8, 8, 4],
  );
  assert.equal(new Set(chunks.map(({ pcm }) => pcm.buffer)).size, 3);
});

test("flush hands on what is left once, and nothing where nothing is", () => {
  const chunks = chunked(4, (it) => {
    it.flush();
    it.push([Float32Array.of(0.5, 0.25)]);
    it.flush();
    it.flush();
    it.push([Float32Array.of(1, 1, 1, 1)]);
    it.flush();
  });
  assert.deepEqual(
    chunks.map(({ pcm }) => [...pcm]),
    [
      [16384, 8192],
      [32767, 32767, 32767, 32767],
    ],
  );
});

test("the peak is the chunk's largest sample without its sign", () => {
  const chunks = chunked(2, (it) => {
    it.push([Float32Array.of(0.25, -0.5, 0, 0, 0.125, 7, -7, 0)]);
  });
  assert.deepEqual(
    chunks.map(({ peak }) => peak),
    [0.5, 0, 32767 / 32768, 1],
  );
});

test("nothing comes of no channels", () => {
  assert.deepEqual(
    chunked(1, (it) => it.push([])),
    [],
  );
});

test("silence counts like sound", () => {
  const [{ pcm, peak }] = chunked(3, (it) => {
    it.push([Float32Array.of(0.5)]);
    it.pushSilence(2);
  });
  assert.deepEqual([...pcm], [16384, 0, 0]);
  assert.equal(peak, 0.5);
});

// --- as an audio worklet ------------------------------------------------------------------------

let numScopes = 0; // each has a module of its own, as import() gives the same one twice

/** A processor of a fresh module in a scope like that of a worklet. */
async function openProcessor(sampleRate = 48_000) {
  /** @type {{data: any, transfer: unknown[]}[]} */
  const posted = [];
  const port = {
    onmessage: (/** @type {{data: string}} */ _) => {},
    postMessage: (/** @type {any} */ data, /** @type {unknown[]} */ transfer) =>
      posted.push({ data, transfer }),
  };
  /** @type {Map<string, any>} */
  const registered = new Map();
  const scope = {
    sampleRate,
    AudioWorkletProcessor: class {
      port = port;
    },
    registerProcessor: (/** @type {string} */ name, /** @type {any} */ processor) =>
      registered.set(name, processor),
  };
  Object.assign(globalThis, scope);
  try {
    numScopes += 1;
    const fresh = new URL(`../../web_demo/pcm_worklet.js?scope=${numScopes}`, import.meta.url);
    const { PROCESSOR_NAME } = await import(fresh.href);
    if (!registered.has(PROCESSOR_NAME)) throw new Error(`no ${PROCESSOR_NAME} was registered`);
    const Processor = registered.get(PROCESSOR_NAME);
    return { processor: new Processor(), posted, port };
  } finally {
    for (const name of Object.keys(scope)) Reflect.deleteProperty(globalThis, name);
  }
}

const quantum = () => [new Float32Array(128).fill(0.5)];

test("outside of a worklet nothing is registered", () => {
  assert.equal(Reflect.has(globalThis, "registerProcessor"), false);
  assert.equal(typeof PcmChunker, "function");
});

for (const [sampleRate, chunkSamples] of [
  [48_000, 1920],
  [44_100, 1764],
  [22_050, 882],
  [11_025, 441],
]) {
  test(`a chunk at ${sampleRate} Hz is 40 ms, and its buffer is transferred`, async () => {
    const { processor, posted } = await openProcessor(sampleRate);
    for (let heard = 0; heard < chunkSamples; heard += 128) processor.process([quantum()]);
    const [{ data, transfer }] = posted;
    assert.equal(posted.length, 1);
    assert.equal(data.pcm.length, chunkSamples);
    assert.equal(data.peak, 0.5);
    assert.deepEqual(transfer, [data.pcm.buffer]);
  });
}

test("without an input nothing is posted, however long", async () => {
  const { processor, posted } = await openProcessor();
  for (let turn = 0; turn < 100; turn += 1) assert.equal(processor.process([[]]), true);
  assert.deepEqual(posted, []);
});

test("an input that shows its silence as no channels keeps the clock going", async () => {
  const { processor, posted, port } = await openProcessor();
  processor.process([quantum()]);
  processor.process([[]]);
  processor.process([quantum()]);
  port.onmessage({ data: "flush" });
  const samples = posted.slice(0, -1).flatMap(({ data }) => [...data.pcm]);
  assert.equal(samples.length, 3 * 128);
  assert.deepEqual([samples[127], samples[128], samples[255], samples[256]], [16384, 0, 0, 16384]);
});

test("flush posts what is left and then answers", async () => {
  const { processor, posted, port } = await openProcessor();
  processor.process([quantum()]);
  port.onmessage({ data: "flush" });
  port.onmessage({ data: "flush" });
  assert.equal(posted[0].data.pcm.length, 128);
  assert.deepEqual(
    posted.slice(1).map(({ data }) => data),
    ["flushed", "flushed"],
  );
});

test("a closed processor asks to be collected", async () => {
  const { processor, port } = await openProcessor();
  assert.equal(processor.process([quantum()]), true);
  port.onmessage({ data: "close" });
  assert.equal(processor.process([quantum()]), false);
});
