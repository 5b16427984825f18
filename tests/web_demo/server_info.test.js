import assert from "node:assert/strict";
import { test } from "node:test";
import { ProtocolError } from "../../web_demo/protocol.js";
import { fetchModel, KeyRequiredError, refusal } from "../../web_demo/server_info.js";

const MODELS = {
  object: "list",
  data: [{ id: "base", object: "model", languages: ["en", "de"], tasks: ["transcribe"] }],
};

/**
 * A server that always gives one answer, and what it was asked.
 * @param {Response | Error} answer
 */
function serverThat(answer) {
  /** @type {{url: string, headers: Headers, cache?: string}[]} */
  const asked = [];
  /** @type {typeof globalThis.fetch} */
  const fetch = async (url, init) => {
    asked.push({ url: String(url), headers: new Headers(init?.headers), cache: init?.cache });
    if (answer instanceof Error) {
      throw answer;
    }
    return answer;
  };
  return { asked, access: { fetch, base: "http://host:8765/demo/" } };
}

/** @param {number} status @param {string} [body] @param {Record<string, string>} [headers] */
const answer = (status, body = "", headers = {}) => new Response(body, { status, headers });

test("the model is what the server says first", async () => {
  const { asked, access } = serverThat(answer(200, JSON.stringify(MODELS)));
  const model = await fetchModel("", access);
  assert.deepEqual(model, { name: "base", languages: ["en", "de"], tasks: ["transcribe"] });
  assert.equal(asked[0].url, "http://host:8765/demo/v1/models");
  assert.equal(asked[0].headers.has("authorization"), false);
});

test("a key is shown where there is one", async () => {
  const { asked, access } = serverThat(answer(426));
  await refusal("k3y", access);
  assert.equal(asked[0].url, "http://host:8765/demo/v1/stream");
  assert.equal(asked[0].headers.get("authorization"), "Bearer k3y");
  assert.equal(asked[0].cache, "no-store");
});

test("a missing key and a wrong one are told apart", async () => {
  const { access } = serverThat(answer(401));
  await assert.rejects(fetchModel("", access), (error) => {
    assert.ok(error instanceof KeyRequiredError);
    assert.match(error.message, /wants an API key: enter it/);
    return true;
  });
  await assert.rejects(fetchModel("old", access), { message: /does not know this API key/ });
  assert.match((await refusal("", access)).sentence, /wants an API key/);
  assert.match((await refusal("old", access)).sentence, /does not know this API key/);
});

test("what cannot be a model is said in words", async () => {
  const wrongs = /** @type {[Response | Error, RegExp][]} */ ([
    [new TypeError("network"), /cannot be reached/],
    [answer(500), /HTTP 500/],
    [answer(200, "<html>"), /not a Starling server/],
    [answer(200, '{"data": []}'), /not a Starling server/],
  ]);
  for (const [wrong, sentence] of wrongs) {
    await assert.rejects(fetchModel("", serverThat(wrong).access), { message: sentence });
  }
});

test("a key that no browser can send is not sent", async () => {
  const { asked, access } = serverThat(answer(200, JSON.stringify(MODELS)));
  await assert.rejects(fetchModel("a key", access), ProtocolError);
  const { retry, sentence } = await refusal("a key", access);
  assert.equal(retry, false);
  assert.match(sentence, /API key has ' ' in it/);
  assert.deepEqual(asked, []);
});

test("each refusal says whether another attempt may succeed", async () => {
  const answers = /** @type {[Response | Error, number, boolean, RegExp][]} */ ([
    [answer(426), 426, true, /although the server is there/],
    [answer(401), 401, false, /API key/],
    [answer(403), 403, false, /--allowed-origin/],
    [answer(404), 404, false, /HTTP 404/],
    [answer(502), 502, true, /HTTP 502/],
    [new TypeError("network"), 0, true, /cannot be reached/],
  ]);
  for (const [one, status, retry, sentence] of answers) {
    const why = await refusal("", serverThat(one).access);
    assert.equal(why.status, status);
    assert.equal(why.retry, retry);
    assert.equal(why.retryAfterMs, 0);
    assert.match(why.sentence, sentence);
  }
});

test("a server that is full and one that ends say when to come back", async () => {
  const full = answer(503, "this server takes no more sessions now\n", { "retry-after": "3" });
  assert.deepEqual(await refusal("", serverThat(full).access), {
    status: 503,
    sentence: "The server is full: it takes no more sessions now.",
    retryAfterMs: 3000,
    retry: true,
  });
  const ending = answer(503, "this server is shutting down\n", {
    "retry-after": "Fri, 31 Dec 1999 23:59:59 GMT",
  });
  const why = await refusal("", serverThat(ending).access);
  assert.equal(why.sentence, "The server is shutting down.");
  assert.equal(why.retryAfterMs, 0);
});

test("an answer that breaks off counts as none", async () => {
  const body = new ReadableStream({ start: (controller) => controller.error(new TypeError()) });
  const why = await refusal("", serverThat(new Response(body, { status: 503 })).access);
  assert.equal(why.status, 0);
  assert.equal(why.retry, true);
});
