import assert from "node:assert/strict";
import { test } from "node:test";
import {
  CLIENT_MESSAGES,
  decode,
  encode,
  ProtocolError,
  SERVER_MESSAGES,
  START_FIELDS,
  subprotocols,
} from "../../web_demo/protocol.js";
import { GOLDEN_TYPES, golden, goldenText } from "./golden.js";

/** @param {() => unknown} act */
function sentenceOf(act) {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof ProtocolError, `threw ${error}`);
    return error.message;
  }
  return assert.fail("nothing was thrown");
}

/** @param {any} message */
const encodeSentence = (message) => sentenceOf(() => encode(message));
/** @param {unknown} message */
const decodeSentence = (message) => sentenceOf(() => decode(JSON.stringify(message)));

test("every golden message is of a type known here, and every type has one", () => {
  const known = [...Object.keys(CLIENT_MESSAGES), ...Object.keys(SERVER_MESSAGES)];
  // Audio is a binary frame, and nothing that is written or read here.
  assert.deepEqual([...known, "audio"].sort(), [...GOLDEN_TYPES].sort());
});

for (const type of Object.keys(SERVER_MESSAGES)) {
  test(`the golden ${type} is read exactly`, () => {
    assert.deepEqual(decode(goldenText(type)), golden(type));
  });
}

for (const type of Object.keys(CLIENT_MESSAGES)) {
  test(`the golden ${type} is written exactly`, () => {
    const written = encode(golden(type));
    assert.deepEqual(JSON.parse(written), golden(type));
    assert.deepEqual(Object.keys(JSON.parse(written)), Object.keys(golden(type)));
  });
}

test("a message that was read cannot be changed, nor what it holds", () => {
  const final = /** @type {any} */ (decode(goldenText("final")));
  assert.throws(() => {
    final.text = "something else";
  }, TypeError);
  assert.throws(() => {
    final.words[0].word = "something else";
  }, TypeError);
  assert.throws(() => final.words.pop(), TypeError);
});

test("the tables cannot be changed either", () => {
  assert.throws(() => {
    /** @type {any} */ (START_FIELDS).sample_rate.max = 96000;
  }, TypeError);
});

test("what a server leaves out has its default, or is missing where it has none", () => {
  assert.deepEqual(decode('{"type": "error", "code": "bad_message", "message": "no"}'), {
    type: "error",
    seq: 0,
    code: "bad_message",
    message: "no",
    fatal: true,
  });
  assert.deepEqual(decode('{"type": "flushed", "at": 1}'), {
    type: "flushed",
    seq: 0,
    id: null,
    at: 1,
  });
  const { words, ...rest } = golden("final");
  assert.ok(words.length > 0);
  assert.deepEqual(decode(JSON.stringify(rest)), rest);
});

test("unknown fields of a server are left behind, whatever they are called", () => {
  const frame =
    '{"type": "done", "audio_s": 1, "segments": 0, "x": [1], "__proto__": {"y": 2}, "toString": 3}';
  const done = decode(frame);
  assert.deepEqual(Object.keys(done).sort(), ["audio_s", "segments", "seq", "type"]);
  assert.equal(Object.getPrototypeOf(done), Object.prototype);
});

test("a wrong field is named with what it got and what it takes", () => {
  for (const [message, sentence] of /** @type {[unknown, string][]} */ ([
    [golden("final", { start: "x" }), "final.start: got 'x', takes a number"],
    [golden("final", { end: null }), "final.end: got null, takes a number"],
    [golden("final", { text: 5 }), "final.text: got 5, takes a string"],
    [golden("final", { text: ["a"] }), "final.text: got a list, takes a string"],
    [golden("final", { words: {} }), /final.words: got an object, takes a list, each an object/],
    [
      golden("final", { words: null }),
      "final.words: got null, takes a list, each an object with word, start, end, confidence",
    ],
    [golden("ack", { samples_received: 1.5 }), "ack.samples_received: got 1.5, takes an integer"],
    [golden("error", { fatal: 1 }), "error.fatal: got 1, takes true or false"],
    [golden("warning", { code: "slow" }), "warning.code: got 'slow', takes one of lagging"],
    [golden("done", { seq: "1" }), "done.seq: got '1', takes an integer"],
    [{ type: "done", audio_s: 1 }, "done.segments: got nothing, takes an integer"],
    [
      golden("flushed", { id: true }),
      "flushed.id: got true, takes a string of at most 256 characters, " +
        "or an integer from -9007199254740992 to 9007199254740992, or null",
    ],
  ])) {
    const got = decodeSentence(message);
    if (typeof sentence === "string") {
      assert.equal(got, sentence);
    } else {
      assert.match(got, sentence);
    }
  }
});

test("a number that is too large to be one is refused", () => {
  assert.equal(
    sentenceOf(() => decode('{"type": "done", "audio_s": 1e999, "segments": 0}')),
    "done.audio_s: got Infinity, takes a number",
  );
});

test("a wrong field of a word is named by its place", () => {
  const [first, second] = golden("final").words;
  const message = golden("final", { words: [first, { ...second, start: "late" }] });
  assert.equal(decodeSentence(message), "final.words[1].start: got 'late', takes a number");
  assert.equal(
    decodeSentence(golden("final", { words: [{ word: "a" }] })),
    "final.words[0].start: got nothing, takes a number",
  );
  assert.match(decodeSentence(golden("final", { words: [3] })), /^final\.words\[0\]: got 3, takes/);
});

test("every required field of every message is required, and no other", () => {
  for (const [type, fields] of Object.entries(SERVER_MESSAGES)) {
    for (const [name, field] of Object.entries(fields)) {
      const { [name]: _, ...rest } = golden(type);
      const frame = JSON.stringify(rest);
      if ("default" in field || "optional" in field) {
        decode(frame);
      } else {
        assert.match(
          sentenceOf(() => decode(frame)),
          new RegExp(`^${type}.${name}: got nothing`),
        );
      }
    }
  }
});

test("an unknown type is an error that names the known ones", () => {
  assert.equal(
    encodeSentence({ type: "begin" }),
    "type: got 'begin', takes one of flush, keepalive, resume, start, stop",
  );
  for (const type of ["start", "toString", "__proto__", "", null, 5, ["done"]]) {
    assert.match(decodeSentence({ type }), /^type: got .+, takes one of ack, done, error, final, /);
  }
  assert.match(decodeSentence({}), /^type: got null, takes one of /);
});

test("audio is the binary frame itself, not a message", () => {
  assert.match(encodeSentence(golden("audio")), /^type: got 'audio', takes one of /);
});

test("what is no message at all is refused in words", () => {
  assert.match(
    sentenceOf(() => decode("")),
    /^the frame is not JSON: /,
  );
  assert.match(
    sentenceOf(() => decode("{")),
    /^the frame is not JSON: /,
  );
  assert.equal(
    sentenceOf(() => decode(new ArrayBuffer(2))),
    "a server sends text frames with asr.json.v1, got binary",
  );
  assert.equal(decodeSentence(null), "a message is an object with a type, got null");
  assert.equal(decodeSentence([]), "a message is an object with a type, got a list");
  assert.equal(decodeSentence("done"), "a message is an object with a type, got 'done'");
  assert.equal(encodeSentence(undefined), "a message is an object with a type, got nothing");
});

test("the ends of every range are taken and what lies beyond them is not", () => {
  let numRanges = 0;
  for (const [name, field] of Object.entries(START_FIELDS)) {
    if (!("min" in field)) {
      continue;
    }
    numRanges += 1;
    const { kind, min, max } = field;
    const step = kind === "integer" ? 1 : 0.001;
    for (const value of [min, max]) {
      assert.equal(JSON.parse(encode({ type: "start", [name]: value }))[name], value);
    }
    for (const value of [min - step, max + step, Number.NaN, Infinity, `${min}`, null]) {
      const takes = kind === "integer" ? "an integer" : "a number";
      assert.equal(
        encodeSentence({ type: "start", [name]: value }),
        `start.${name}: got ${typeof value === "string" ? `'${value}'` : value}, ` +
          `takes ${takes} from ${min} to ${max}`,
      );
    }
  }
  assert.equal(numRanges, 6);
  assert.match(
    encodeSentence({ type: "start", sample_rate: 16000.5 }),
    /^start.sample_rate: got 16000.5, takes an integer/,
  );
});

test("the defaults of start are values that start takes", () => {
  const defaults = Object.fromEntries(
    Object.entries(START_FIELDS).map(([name, field]) => [name, field.default]),
  );
  const start = { type: "start", ...defaults };
  assert.deepEqual(JSON.parse(encode(/** @type {any} */ (start))), start);
});

test("only what was given is written, and undefined is not given", () => {
  assert.equal(encode({ type: "start" }), '{"type":"start"}');
  assert.equal(
    encode({ type: "start", language: undefined, prompt: "a" }),
    '{"type":"start","prompt":"a"}',
  );
  assert.equal(encode({ type: "start", language: null }), '{"type":"start","language":null}');
  assert.equal(encode({ type: "flush" }), '{"type":"flush"}');
});

test("a field that a message does not have is a mistake of the page", () => {
  assert.match(
    encodeSentence({ type: "start", sampleRate: 16000 }),
    /^start.sampleRate: there is no such field; start has sample_rate, encoding, /,
  );
  assert.equal(
    encodeSentence({ type: "stop", toString: 1 }),
    "stop.toString: there is no such field; stop has nothing",
  );
});

test("lists of start are checked item by item", () => {
  const takes200 = Array.from({ length: 200 }, () => "en");
  encode({ type: "start", languages: takes200 });
  encode({ type: "start", languages: [] });
  encode({ type: "start", languages: null });
  assert.equal(
    encodeSentence({ type: "start", languages: [...takes200, "de"] }),
    "start.languages: got a list, takes a list of at most 200, each a string, or null",
  );
  assert.equal(
    encodeSentence({ type: "start", languages: ["en", 5] }),
    "start.languages[1]: got 5, takes a string",
  );
});

test("an id of flush is a string, an exact integer or null", () => {
  for (const id of ["", "😀".repeat(256), 0, -(2 ** 53), 2 ** 53, null]) {
    assert.equal(JSON.parse(encode({ type: "flush", id })).id, id);
  }
  for (const id of ["😀".repeat(257), 2 ** 53 + 2, 1.5, true, ["a"], 5n]) {
    assert.match(encodeSentence({ type: "flush", id }), /^flush.id: got .+, takes a string of /);
  }
});

test("half a character is no text", () => {
  const half = "😀".slice(0, 1);
  assert.match(encodeSentence({ type: "start", prompt: half }), /^start.prompt: got /);
  assert.match(decodeSentence(golden("final", { text: `a${half}` })), /^final.text: got /);
  assert.equal(JSON.parse(encode({ type: "start", prompt: "a😀" })).prompt, "a😀");
});

test("a long value is shown shortened", () => {
  assert.ok(encodeSentence({ type: "start", sample_rate: "9".repeat(10_000) }).length < 150);
});

test("the subprotocol is offered alone without a key, and beside the key with one", () => {
  assert.deepEqual(subprotocols(), ["asr.json.v1"]);
  assert.deepEqual(subprotocols(""), ["asr.json.v1"]);
  const key = "AZaz09!#$%&'*+-.^_`|~";
  assert.deepEqual(subprotocols(key), ["asr.json.v1", `bearer.${key}`]);
});

test("a key that a browser cannot send is refused without being shown", () => {
  for (const wrong of [" ", ",", "/", "=", "ü", "\n", '"', "😀"]) {
    const sentence = sentenceOf(() => subprotocols(`sec${wrong}ret`));
    assert.ok(sentence.includes(`'${wrong}'`), sentence);
    assert.ok(sentence.includes("!#$%&'*+-.^_`|~"), sentence);
    assert.ok(!sentence.includes("sec"), sentence);
  }
});
