import assert from "node:assert/strict";
import { test } from "node:test";
import { FORMATS, fileType, render } from "../../web_demo/transcript_formats.js";
import { golden } from "./golden.js";

/**
 * @param {number} start
 * @param {number} end
 * @param {string} text
 * @param {object} [changes]
 */
function final(start, end, text, changes = {}) {
  return golden("final", { start, end, text, words: [], ...changes });
}

const FINALS = [
  final(0.25, 1.5, "Grüße!", { confidence: 0.87654, no_speech_prob: 0.012345 }),
  final(2, 3, ""), // nothing was said
  final(3661, 3723.4567, " One. Two.", { language: "de" }),
];

test("text is a line for each final that says something", () => {
  assert.equal(render(FINALS, 3723.5, "text"), "Grüße!\nOne. Two.\n");
});

test("SRT numbers its cues and writes a comma", () => {
  assert.equal(
    render(FINALS, 3723.5, "srt"),
    "1\n00:00:00,250 --> 00:00:01,500\nGrüße!\n" +
      "\n2\n01:01:01,000 --> 01:02:03,457\nOne. Two.\n",
  );
});

test("WebVTT begins with its name and writes a point", () => {
  assert.equal(
    render(FINALS, 3723.5, "vtt"),
    "WEBVTT\n" +
      "\n00:00:00.250 --> 00:00:01.500\nGrüße!\n" +
      "\n01:01:01.000 --> 01:02:03.457\nOne. Two.\n",
  );
});

test("milliseconds that round up are carried, and halves are rounded to even", () => {
  for (const [seconds, shown] of /** @type {[number, string][]} */ ([
    [59.9996, "00:01:00,000"],
    [3599.9999, "01:00:00,000"],
    [360000, "100:00:00,000"],
    [8 / 16000, "00:00:00,000"],
    [24 / 16000, "00:00:00,002"],
    [40 / 16000, "00:00:00,002"],
  ])) {
    const [, times] = render([final(0, seconds, "x")], seconds, "srt").split("\n");
    assert.equal(times, `00:00:00,000 --> ${shown}`);
  }
});

test("JSON holds the whole text and each segment with its figures", () => {
  const written = JSON.parse(render(FINALS, 3723.5, "json"));
  assert.deepEqual(written, {
    text: "Grüße! One. Two.",
    language: "en",
    duration: 3723.5,
    segments: [
      {
        id: 0,
        start: 0.25,
        end: 1.5,
        text: "Grüße!",
        confidence: 0.8765,
        no_speech_prob: 0.0123,
        language: "en",
      },
      {
        id: 1,
        start: 3661,
        end: 3723.4567,
        text: "One. Two.",
        confidence: 0.93,
        no_speech_prob: 0.01,
        language: "de",
      },
    ],
  });
});

test("JSON has the words of a segment where there are any", () => {
  const word = { word: "One", start: 0.5, end: 0.75, confidence: 0.87654 };
  const finals = [final(0, 1, "One", { words: [word] }), golden("final", { words: undefined })];
  const { segments } = JSON.parse(render(finals, 3, "json"));
  assert.deepEqual(segments[0].words, [{ ...word, confidence: 0.8765 }]);
  assert.ok(!("words" in segments[1]));
});

test("a recording without speech is still a valid file", () => {
  const silent = [final(0, 1, "")];
  assert.equal(render(silent, 4, "text"), "");
  assert.equal(render(silent, 4, "srt"), "");
  assert.equal(render(silent, 4, "vtt"), "WEBVTT\n");
  assert.deepEqual(JSON.parse(render(silent, 4, "json")), {
    text: "",
    language: null,
    duration: 4,
    segments: [],
  });
});

test("every format ends in a newline and says what file it makes", () => {
  assert.equal(FORMATS.length, 4);
  for (const form of FORMATS) {
    assert.ok(render(FINALS, 1, form).endsWith("\n"));
  }
  assert.deepEqual(
    FORMATS.map((form) => fileType(form).extension),
    ["txt", "srt", "vtt", "json"],
  );
  assert.deepEqual(
    FORMATS.map((form) => fileType(form).mime.split(";")[0]),
    ["text/plain", "application/x-subrip", "text/vtt", "application/json"],
  );
});

test("an unknown format is refused with the known ones", () => {
  for (const act of [() => render([], 0, "pdf"), () => fileType("toString")]) {
    assert.throws(act, /^RangeError: format: got '\w+', takes one of text, srt, vtt, json$/);
  }
});
