import assert from "node:assert/strict";
import { test } from "node:test";
import { Backlog } from "../../web_demo/backlog.js";
import { seededRandom } from "./support/seeded_random.js";

const SAMPLE_RATE = 100;

/**
 * Samples that say where they lie.
 * @param {number} start @param {number} length
 */
function audio(start, length) {
  return Int16Array.from({ length }, (_, index) => start + index);
}

/** @param {Backlog} backlog */
function takeAll(backlog) {
  const taken = [];
  for (let chunk = backlog.takeUnsent(); chunk; chunk = backlog.takeUnsent()) {
    taken.push(...chunk);
  }
  return taken;
}

test("audio is sent once, in order", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE });
  backlog.append(audio(0, 40));
  backlog.append(audio(40, 40));
  assert.deepEqual(backlog.takeUnsent(), audio(0, 40));
  backlog.append(audio(80, 40));
  assert.equal(backlog.unsentS, 0.8);
  assert.deepEqual(takeAll(backlog), [...audio(40, 80)]);
  assert.equal(backlog.takeUnsent(), null);
  assert.equal(backlog.unsentS, 0);
  assert.equal(backlog.heldS, 1.2);
});

test("no chunk is longer than a message may be", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE });
  backlog.append(audio(0, 250));
  const lengths = [1, 2, 3].map(() => backlog.takeUnsent()?.length);
  assert.deepEqual(lengths, [100, 100, 50]);
});

test("after a rewind audio is sent again from exactly where it is needed", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE });
  backlog.append(audio(0, 40));
  backlog.append(audio(40, 40));
  backlog.append(audio(80, 40));
  takeAll(backlog);
  backlog.forgetBefore(50);
  assert.equal(backlog.heldS, 0.7);
  assert.equal(backlog.rewind(), 50);
  assert.deepEqual(takeAll(backlog), [...audio(50, 70)]);
});

test("what was not sent is never forgotten, and nothing is forgotten twice", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE });
  backlog.append(audio(0, 40));
  backlog.append(audio(40, 40));
  backlog.takeUnsent();
  backlog.forgetBefore(60);
  assert.equal(backlog.firstSample, 40);
  backlog.forgetBefore(20);
  assert.equal(backlog.firstSample, 40);
  assert.deepEqual(takeAll(backlog), [...audio(40, 40)]);
});

test("beyond the capacity the oldest audio is dropped and counted as lost", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE, capacityS: 1 });
  for (let start = 0; start < 160; start += 40) {
    backlog.append(audio(start, 40));
  }
  assert.equal(backlog.lostS, 0.8);
  assert.equal(backlog.heldS, 0.8);
  assert.equal(backlog.firstSample, 80);
  assert.deepEqual(takeAll(backlog), [...audio(80, 80)]);
});

test("audio that was sent and dropped is lost only if its connection is", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE, capacityS: 1 });
  for (let start = 0; start < 200; start += 40) {
    backlog.append(audio(start, 40));
    backlog.takeUnsent();
  }
  assert.equal(backlog.firstSample, 120);
  assert.equal(backlog.lostS, 0);
  backlog.forgetBefore(70);
  backlog.rewind();
  assert.equal(backlog.lostS, 0.5);
  backlog.rewind();
  assert.equal(backlog.lostS, 0.5);
});

test("audio that was dropped after it had served its purpose is not lost", () => {
  const backlog = new Backlog({ sampleRate: SAMPLE_RATE, capacityS: 1 });
  for (let start = 0; start < 200; start += 40) {
    backlog.append(audio(start, 40));
    backlog.takeUnsent();
  }
  backlog.forgetBefore(130);
  assert.equal(backlog.rewind(), 130);
  assert.equal(backlog.lostS, 0);
});

test("whatever happens, each sample is held, forgotten or lost, and sent in order", () => {
  const random = seededRandom(1);
  for (let round = 0; round < 50; round += 1) {
    const backlog = new Backlog({ sampleRate: SAMPLE_RATE, capacityS: 3 });
    let end = 0;
    let sentTo = 0; // of this connection
    for (let step = 0; step < 200; step += 1) {
      const dice = random();
      if (dice < 0.4) {
        const length = 1 + Math.floor(random() * 60);
        backlog.append(audio(end, length));
        end += length;
      } else if (dice < 0.8) {
        const from = Math.max(sentTo, backlog.firstSample);
        const chunk = backlog.takeUnsent();
        if (chunk !== null) {
          assert.equal(chunk[0], from);
          sentTo = from + chunk.length;
        }
      } else if (dice < 0.95) {
        backlog.forgetBefore(Math.floor(random() * sentTo));
      } else {
        sentTo = backlog.rewind();
        assert.equal(backlog.unsentS, backlog.heldS);
      }
      const held = Math.round(backlog.heldS * SAMPLE_RATE);
      const unsent = Math.round(backlog.unsentS * SAMPLE_RATE);
      assert.equal(backlog.firstSample + held, end);
      assert.equal(backlog.nextSample, Math.max(sentTo, backlog.firstSample));
      assert.equal(backlog.nextSample + unsent, end);
      assert.ok(held <= 3 * SAMPLE_RATE);
    }
  }
});
