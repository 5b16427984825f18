/**
 * The wire, version 1, as a page speaks it: subprotocol `asr.json.v1`.
 *
 * Decides what a well-formed message is and what its text is; leaves their order to whoever holds
 * the socket. Mirrors stream_server/protocol.py, and a test compares the two field by field.
 * Audio needs no writing: a binary frame is audio, nothing else in it. docs/protocol.md describes
 * all of it in prose. Imports nothing, so that another page can use this file alone.
 */

export const STREAM_PATH = "/v1/stream";
export const JSON_SUBPROTOCOL = "asr.json.v1";
export const BEARER_PREFIX = "bearer."; // a browser cannot set headers on a websocket
export const MAX_CHUNK_S = 1; // longest audio message; what is sent late is sent in pieces

// --- messages ---------------------------------------------------------------------------------
// Times are seconds of session audio.

/**
 * Opens the session. What is left out has the default that START_FIELDS states.
 * @typedef {object} Start
 * @property {"start"} type
 * @property {number} [sample_rate]
 * @property {string} [encoding]
 * @property {number} [channels]
 * @property {string | null} [language]
 * @property {readonly string[] | null} [languages]
 * @property {string} [task]
 * @property {string} [prompt]
 * @property {boolean} [interim_results]
 * @property {boolean} [append_only]
 * @property {number} [interim_interval_ms]
 * @property {boolean} [word_timestamps]
 * @property {number} [endpoint_silence_ms]
 * @property {number} [vad_threshold]
 * @property {number} [max_segment_s]
 */

/** @typedef {string | number | null} FlushId */
/** @typedef {{type: "flush", id?: FlushId}} Flush */
/** @typedef {{type: "keepalive"}} Keepalive */
/** @typedef {{type: "stop"}} Stop */
/** @typedef {{type: "resume", session: string, token: string, last_seq: number}} Resume */
/** @typedef {Start | Flush | Keepalive | Stop | Resume} ClientMessage */

/** @typedef {{readonly seq: number}} Numbered */

/**
 * @typedef {Numbered & {
 *   readonly type: "ready",
 *   readonly session: string,
 *   readonly token: string,
 *   readonly model: string,
 *   readonly resume_window_s: number,
 * }} Ready
 */

/**
 * @typedef {Numbered & {
 *   readonly type: "resumed",
 *   readonly session: string,
 *   readonly samples_received: number,
 * }} Resumed
 */

/** @typedef {Numbered & {readonly type: "speech_started", readonly at: number}} SpeechStarted */
/** @typedef {Numbered & {readonly type: "speech_stopped", readonly at: number}} SpeechStopped */
/** @typedef {Numbered & {readonly type: "ack", readonly samples_received: number}} Ack */

/**
 * The hypothesis so far: `text` begins with `stable_text`, which only ever grows.
 * @typedef {Numbered & {
 *   readonly type: "partial",
 *   readonly segment: number,
 *   readonly revision: number,
 *   readonly start: number,
 *   readonly end: number,
 *   readonly text: string,
 *   readonly stable_text: string,
 *   readonly stable_end: number,
 *   readonly language: string,
 * }} Partial
 */

/**
 * @typedef {object} Word
 * @property {string} word
 * @property {number} start
 * @property {number} end
 * @property {number} confidence
 */

/**
 * The segment is closed and never changes. `words` only where they were asked for.
 * @typedef {Numbered & {
 *   readonly type: "final",
 *   readonly segment: number,
 *   readonly start: number,
 *   readonly end: number,
 *   readonly text: string,
 *   readonly language: string,
 *   readonly language_probability: number,
 *   readonly confidence: number,
 *   readonly no_speech_prob: number,
 *   readonly words?: readonly Readonly<Word>[],
 * }} Final
 */

/** @typedef {Numbered & {readonly type: "flushed", readonly id: FlushId, readonly at: number}} Flushed */

/**
 * @typedef {Numbered & {
 *   readonly type: "warning",
 *   readonly code: string,
 *   readonly message: string,
 *   readonly interim_interval_ms: number,
 * }} Warning
 */

/**
 * `fatal` announces that the server closes the connection.
 * @typedef {Numbered & {
 *   readonly type: "error",
 *   readonly code: string,
 *   readonly message: string,
 *   readonly fatal: boolean,
 * }} ErrorMessage
 */

/**
 * @typedef {Numbered & {
 *   readonly type: "done",
 *   readonly audio_s: number,
 *   readonly segments: number,
 * }} Done
 */

/**
 * @typedef {Ready | Resumed | SpeechStarted | SpeechStopped | Ack | Partial | Final | Flushed
 *   | Warning | ErrorMessage | Done} ServerMessage
 */

// --- what each field takes --------------------------------------------------------------------

/**
 * @typedef {object} Field
 * @property {"integer" | "number" | "string" | "boolean" | "list" | "object" | "either"} kind
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [maxLength] in characters of a string, in items of a list
 * @property {readonly string[]} [choices] of a string
 * @property {Field} [item] of a list: what each is
 * @property {Readonly<Record<string, Field>>} [fields] of an object
 * @property {readonly Field[]} [of] of `either`
 * @property {boolean} [nullable]
 * @property {boolean} [optional] may be missing, and then has no value at all
 * @property {unknown} [default] may be missing, and then has this value
 */

/**
 * Holds each table below to the fields of its message.
 * @template Message
 * @typedef {{[Name in Exclude<keyof Message, "type">]-?: Field}} FieldsOf
 */

/**
 * @template {{type: string}} Message
 * @typedef {{[One in Message as One["type"]]: FieldsOf<One>}} TablesOf
 */

const MAX_EXACT = 2 ** 53; // integers beyond it are not exact in JavaScript

/** @satisfies {Field} */
const SEQ = { kind: "integer", default: 0 };

/** @satisfies {Field} */
const FLUSH_ID = {
  kind: "either",
  of: [
    { kind: "string", maxLength: 256 },
    { kind: "integer", min: -MAX_EXACT, max: MAX_EXACT },
  ],
  nullable: true,
  default: null,
};

/** What `start` takes: enough to check it and to build a form from. */
export const START_FIELDS = freeze(
  /** @satisfies {FieldsOf<Start>} */ ({
    sample_rate: { kind: "integer", min: 8000, max: 48000, default: 16000 },
    encoding: { kind: "string", default: "pcm_s16le" },
    channels: { kind: "integer", min: 1, max: 2, default: 1 },
    language: { kind: "string", nullable: true, default: null },
    languages: {
      kind: "list",
      item: { kind: "string" },
      maxLength: 200,
      nullable: true,
      default: null,
    },
    task: { kind: "string", default: "transcribe" },
    prompt: { kind: "string", default: "" },
    interim_results: { kind: "boolean", default: true },
    append_only: { kind: "boolean", default: true },
    interim_interval_ms: { kind: "integer", min: 100, max: 5000, default: 400 },
    word_timestamps: { kind: "boolean", default: false },
    endpoint_silence_ms: { kind: "integer", min: 100, max: 5000, default: 500 },
    vad_threshold: { kind: "number", min: 0, max: 1, default: 0.5 },
    max_segment_s: { kind: "number", min: 2, max: 30, default: 28 },
  }),
);

/** What each message to the server takes beside its `type`. */
export const CLIENT_MESSAGES = freeze(
  /** @satisfies {TablesOf<ClientMessage>} */ ({
    start: START_FIELDS,
    flush: { id: FLUSH_ID },
    keepalive: {},
    stop: {},
    resume: {
      session: { kind: "string" },
      token: { kind: "string" },
      last_seq: { kind: "integer", min: 0, max: MAX_EXACT },
    },
  }),
);

/** What each message from the server holds beside its `type`. */
export const SERVER_MESSAGES = freeze(
  /** @satisfies {TablesOf<ServerMessage>} */ ({
    ready: {
      seq: SEQ,
      session: { kind: "string" },
      token: { kind: "string" },
      model: { kind: "string" },
      resume_window_s: { kind: "number" },
    },
    resumed: { seq: SEQ, session: { kind: "string" }, samples_received: { kind: "integer" } },
    speech_started: { seq: SEQ, at: { kind: "number" } },
    speech_stopped: { seq: SEQ, at: { kind: "number" } },
    ack: { seq: SEQ, samples_received: { kind: "integer" } },
    partial: {
      seq: SEQ,
      segment: { kind: "integer" },
      revision: { kind: "integer" },
      start: { kind: "number" },
      end: { kind: "number" },
      text: { kind: "string" },
      stable_text: { kind: "string" },
      stable_end: { kind: "number" },
      language: { kind: "string" },
    },
    final: {
      seq: SEQ,
      segment: { kind: "integer" },
      start: { kind: "number" },
      end: { kind: "number" },
      text: { kind: "string" },
      language: { kind: "string" },
      language_probability: { kind: "number" },
      confidence: { kind: "number" },
      no_speech_prob: { kind: "number" },
      words: {
        kind: "list",
        item: {
          kind: "object",
          fields: {
            word: { kind: "string" },
            start: { kind: "number" },
            end: { kind: "number" },
            confidence: { kind: "number" },
          },
        },
        optional: true,
      },
    },
    flushed: { seq: SEQ, id: FLUSH_ID, at: { kind: "number" } },
    warning: {
      seq: SEQ,
      code: { kind: "string", choices: ["lagging"] },
      message: { kind: "string" },
      interim_interval_ms: { kind: "integer" },
    },
    error: {
      seq: SEQ,
      code: {
        kind: "string",
        choices: [
          "bad_message",
          "unsupported",
          "not_started",
          "already_started",
          "message_too_large",
          "idle_timeout",
          "unknown_session",
          "engine_failure",
          "shutting_down",
        ],
      },
      message: { kind: "string" },
      fatal: { kind: "boolean", default: true },
    },
    done: { seq: SEQ, audio_s: { kind: "number" }, segments: { kind: "integer" } },
  }),
);

// --- reading and writing ----------------------------------------------------------------------

/** What is not a message: the sentence names the field, what it got and what it takes. */
export class ProtocolError extends Error {
  /** @param {string} sentence */
  constructor(sentence) {
    super(sentence);
    this.name = "ProtocolError";
  }
}

/**
 * The text frame of a message.
 *
 * Stricter than the server, which ignores fields it does not know: here one is a slip of the pen.
 * @param {ClientMessage} message
 * @returns {string}
 * @throws {ProtocolError}
 */
export function encode(message) {
  const { type, fields, given } = recognised(message, CLIENT_MESSAGES);
  const unknown = Object.keys(given).find(
    (name) => name !== "type" && !Object.hasOwn(fields, name),
  );
  if (unknown !== undefined) {
    const known = Object.keys(fields).join(", ") || "nothing";
    throw new ProtocolError(`${type}.${unknown}: there is no such field; ${type} has ${known}`);
  }
  return JSON.stringify({ type, ...readFields(type, given, fields) });
}

/**
 * The message in a frame, frozen, with the defaults of what it left out.
 *
 * Unknown fields are left behind. Of a key given twice the last counts, which is JSON.parse's way
 * and stricter in Python.
 * @param {unknown} frame the `data` of a websocket's message event
 * @returns {ServerMessage}
 * @throws {ProtocolError}
 */
export function decode(frame) {
  if (typeof frame !== "string") {
    throw new ProtocolError(`a server sends text frames with ${JSON_SUBPROTOCOL}, got binary`);
  }
  const { type, fields, given } = recognised(parsed(frame), SERVER_MESSAGES);
  const message = { type, ...defaultsOf(fields), ...readFields(type, given, fields) };
  return /** @type {ServerMessage} */ (/** @type {unknown} */ (freeze(message)));
}

const NOT_IN_A_TOKEN = /[^A-Za-z0-9!#$%&'*+\-.^_`|~]/u; // RFC 9110's, which subprotocols are

/**
 * What to offer in `new WebSocket(url, …)`; an empty key is none.
 * @param {string} [key] an API key, where the server wants one
 * @returns {string[]}
 * @throws {ProtocolError} for a key that a browser cannot send
 */
export function subprotocols(key = "") {
  const wrong = NOT_IN_A_TOKEN.exec(key);
  if (wrong !== null) {
    throw new ProtocolError(
      `the API key has ${shown(wrong[0])} in it, which a browser cannot send; a key for browsers ` +
        "is made of letters, digits and !#$%&'*+-.^_`|~ only",
    );
  }
  return key === "" ? [JSON_SUBPROTOCOL] : [JSON_SUBPROTOCOL, BEARER_PREFIX + key];
}

/**
 * @param {string} frame
 * @returns {unknown}
 */
function parsed(frame) {
  try {
    return JSON.parse(frame);
  } catch (error) {
    throw new ProtocolError(`the frame is not JSON: ${/** @type {Error} */ (error).message}`);
  }
}

/**
 * A value that has one of the types, and what that type takes.
 * @param {unknown} value
 * @param {Readonly<Record<string, Readonly<Record<string, Field>>>>} messages
 */
function recognised(value, messages) {
  if (!isObject(value)) {
    throw new ProtocolError(`a message is an object with a type, got ${shown(value)}`);
  }
  const type = value.type ?? null;
  if (typeof type !== "string" || !Object.hasOwn(messages, type)) {
    const types = Object.keys(messages).sort().join(", ");
    throw new ProtocolError(`type: got ${shown(type)}, takes one of ${types}`);
  }
  return { type, fields: messages[type], given: value };
}

/**
 * The fields that were given, each checked.
 * @param {string} path
 * @param {Record<string, unknown>} given
 * @param {Readonly<Record<string, Field>>} fields
 * @returns {Record<string, unknown>}
 */
function readFields(path, given, fields) {
  /** @type {Record<string, unknown>} */
  const read = {};
  for (const [name, field] of Object.entries(fields)) {
    const value = given[name];
    if (value !== undefined) {
      read[name] = readValue(`${path}.${name}`, value, field);
    } else if (!("default" in field || field.optional)) {
      throw refusal(`${path}.${name}`, undefined, field);
    }
  }
  return read;
}

/**
 * @param {string} path
 * @param {unknown} value
 * @param {Field} field
 * @returns {unknown}
 */
function readValue(path, value, field) {
  if (!takes(field, value)) {
    throw refusal(path, value, field);
  }
  const { item, fields } = field;
  if (Array.isArray(value) && item !== undefined) {
    return value.map((one, index) => readValue(`${path}[${index}]`, one, item));
  }
  return isObject(value) && fields !== undefined ? readFields(path, value, fields) : value;
}

/**
 * Whether a value is of the field's kind; what it holds inside is looked at on its own.
 * @param {Field} field
 * @param {unknown} value
 * @returns {boolean}
 */
function takes(field, value) {
  const { min = -Infinity, max = Infinity, maxLength = Infinity, choices, of = [] } = field;
  if (value === null) {
    return field.nullable === true;
  }
  switch (field.kind) {
    case "integer":
      return Number.isInteger(value) && Number(value) >= min && Number(value) <= max;
    case "number":
      return Number.isFinite(value) && Number(value) >= min && Number(value) <= max;
    case "string":
      return (
        typeof value === "string" &&
        !LONE_SURROGATE.test(value) &&
        (value.length <= maxLength || [...value].length <= maxLength) &&
        (choices === undefined || choices.includes(value))
      );
    case "boolean":
      return typeof value === "boolean";
    case "list":
      return Array.isArray(value) && value.length <= maxLength;
    case "object":
      return isObject(value);
    case "either":
      return of.some((one) => takes(one, value));
  }
}

const LONE_SURROGATE = /\p{Cs}/u; // half a character, as a slice in the wrong place leaves; no UTF-8

/**
 * @param {Readonly<Record<string, Field>>} fields
 * @returns {Record<string, unknown>}
 */
function defaultsOf(fields) {
  const withDefault = Object.entries(fields).filter(([, field]) => "default" in field);
  return Object.fromEntries(withDefault.map(([name, field]) => [name, field.default]));
}

/**
 * @param {string} path
 * @param {unknown} value
 * @param {Field} field
 */
function refusal(path, value, field) {
  return new ProtocolError(`${path}: got ${shown(value)}, takes ${accepted(field)}`);
}

const MAX_SHOWN_CHARS = 60;

/**
 * @param {unknown} value
 * @returns {string}
 */
function shown(value) {
  if (value === undefined) {
    return "nothing";
  }
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "a list" : "an object";
  }
  const text = typeof value === "string" ? `'${value}'` : String(value);
  return text.length <= MAX_SHOWN_CHARS ? text : `${text.slice(0, MAX_SHOWN_CHARS)}…`;
}

/**
 * What a field takes, in words.
 * @param {Field} field
 * @returns {string}
 */
function accepted(field) {
  return field.nullable ? `${acceptedValue(field)}, or null` : acceptedValue(field);
}

/**
 * @param {Field} field
 * @returns {string}
 */
function acceptedValue({ kind, min, max, maxLength, choices, item, fields = {}, of = [] }) {
  const range = min === undefined || max === undefined ? "" : ` from ${min} to ${max}`;
  const most = maxLength === undefined ? "" : ` of at most ${maxLength}`;
  switch (kind) {
    case "integer":
      return `an integer${range}`;
    case "number":
      return `a number${range}`;
    case "string":
      if (choices !== undefined) {
        return `one of ${[...choices].sort().join(", ")}`;
      }
      return most === "" ? "a string" : `a string${most} characters`;
    case "boolean":
      return "true or false";
    case "list":
      return item === undefined ? `a list${most}` : `a list${most}, each ${accepted(item)}`;
    case "object":
      return `an object with ${Object.keys(fields).join(", ")}`;
    case "either":
      return of.map(accepted).join(", or ");
  }
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Frozen through and through.
 * @template T
 * @param {T} value a tree of plain objects and lists
 * @returns {T}
 */
function freeze(value) {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(freeze);
    Object.freeze(value);
  }
  return value;
}
