/**
 * A server's sessions, with the order and the delays of the real ones: audio is acknowledged on
 * receipt, listened to later but never more than 30 s later, and transcribed later still. What is
 * not zero counts as speech. The text of a final is a number, under which the samples that it was
 * made from are found.
 */

import { message } from "./messages.js";

/** @import { FakeClock } from "./fake_clock.js" */
/** @import { FakeSocket, ServerEnd } from "./fake_network.js" */

const READ_AHEAD_S = 30;
const PRE_ROLL_S = 0.3;
const ENDPOINT_S = 0.5;
const PADDING_S = 0.2; // of the endpoint silence, which a final's audio holds
const FRAME_MS = 32;

export class FakeRecogniser {
  /** @type {Int16Array[]} */
  heard = []; // by the number in a final's text
  /** @type {Session[]} */
  sessions = [];

  /**
   * @param {object} options
   * @param {FakeClock} options.clock
   * @param {() => number} options.random
   * @param {number} options.sampleRate
   * @param {number} [options.speed] of listening, in times real time
   */
  constructor({ clock, random, sampleRate, speed = 20 }) {
    this.clock = clock;
    this.random = random;
    this.sampleRate = sampleRate;
    this.speed = speed;
  }

  /** @param {FakeSocket} socket @returns {ServerEnd} */
  accept = (socket) => {
    const session = new Session(this, socket);
    this.sessions.push(session);
    return session;
  };

  /** The newest session, if it is going on. */
  get session() {
    const newest = this.sessions.at(-1);
    return newest?.isOver === false ? newest : null;
  }

  /** The samples of a final, by its text. @param {string} text */
  samplesOf(text) {
    return this.heard[Number(text)];
  }
}

class Session {
  isOver = false;
  #server;
  #socket;
  #seq = 0;
  /** @type {(string | Int16Array)[]} */
  #unread = [];
  #samples = new Int16Array(1 << 16);
  #numRead = 0;
  #numListened = 0;
  #isListening = false;
  /** @type {{type: string, code?: string} | null} */
  #end = null;
  #isSpeaking = false;
  #speechEnd = 0;
  #segmentStart = 0;
  #passed = 0; // end of the audio of the segments so far
  #cutAfter = Infinity;
  #numSegments = 0;
  /** @type {{start: number, end: number}[]} */
  #pending = []; // segments whose finals are to come
  #numUndone = 0; // samples of these

  /** @param {FakeRecogniser} server @param {FakeSocket} socket */
  constructor(server, socket) {
    this.#server = server;
    this.#socket = socket;
  }

  /** @param {string | Int16Array} frame */
  receive(frame) {
    this.#unread.push(frame);
    this.#read();
  }

  gone() {
    this.isOver = true;
  }

  /** Finalises what was received, then ends with that. @param {{type: string, code?: string}} end */
  finish(end) {
    this.#end ??= end;
    this.#listen();
  }

  /** Ends with an error at once. @param {string} code */
  fail(code) {
    this.#say("error", { code });
    this.#socket.hangUp(1011);
    this.isOver = true;
  }

  #read() {
    const { sampleRate } = this.#server;
    const limit = READ_AHEAD_S * sampleRate;
    while (this.#unread.length > 0 && this.#end === null) {
      if (this.#numRead - this.#numListened + this.#numUndone > limit) {
        break;
      }
      const frame = /** @type {string | Int16Array} */ (this.#unread.shift());
      if (typeof frame === "string") {
        this.#obey(JSON.parse(frame).type);
        continue;
      }
      const secondsBefore = Math.floor(this.#numRead / sampleRate);
      this.#keep(frame);
      const seconds = Math.floor(this.#numRead / sampleRate);
      if (seconds > secondsBefore) {
        this.#say("ack", { samples_received: seconds * sampleRate });
      }
    }
    this.#listen();
  }

  /** @param {string} type */
  #obey(type) {
    if (type === "start") {
      this.#say("ready");
    } else if (type === "stop") {
      this.#end = { type: "done" };
    }
  }

  /** @param {Int16Array} pcm */
  #keep(pcm) {
    if (this.#numRead + pcm.length > this.#samples.length) {
      const larger = new Int16Array(2 * this.#samples.length);
      larger.set(this.#samples);
      this.#samples = larger;
    }
    this.#samples.set(pcm, this.#numRead);
    this.#numRead += pcm.length;
  }

  /** Listens to some of what was read, and comes back for the rest. */
  #listen() {
    if (this.#isListening || this.isOver) {
      return;
    }
    const { clock, random, sampleRate, speed } = this.#server;
    const frame = (FRAME_MS * sampleRate) / 1000;
    const available = Math.floor((this.#numRead - this.#numListened) / frame);
    const numFrames = Math.min(available, 1 + Math.floor(60 * random()));
    if (numFrames === 0) {
      this.#endIfDue();
      return;
    }
    this.#isListening = true;
    clock.setTimeout(
      () => {
        this.#isListening = false;
        for (let index = 0; index < numFrames; index += 1) {
          this.#hear(this.#numListened, this.#numListened + frame);
          this.#numListened += frame;
        }
        this.#read();
      },
      (numFrames * FRAME_MS) / speed + (random() < 0.02 ? 3000 * random() : 0),
    );
  }

  /** @param {number} begin @param {number} end */
  #hear(begin, end) {
    if (this.isOver) {
      return;
    }
    const { sampleRate } = this.#server;
    const isVoiced = this.#samples.subarray(begin, end).some((sample) => sample !== 0);
    if (isVoiced && !this.#isSpeaking) {
      this.#startSpeech(begin);
    }
    if (isVoiced) {
      this.#speechEnd = end;
    }
    if (this.#isSpeaking && end - this.#speechEnd >= ENDPOINT_S * sampleRate) {
      this.#stopSpeech(this.#speechEnd, this.#speechEnd + PADDING_S * sampleRate);
    } else if (this.#isSpeaking && end - this.#segmentStart >= this.#cutAfter) {
      this.#close(
        this.#segmentStart + Math.floor(this.#cutAfter * (0.7 + 0.2 * this.#server.random())),
      );
    }
  }

  /** @param {number} at */
  #startSpeech(at) {
    const { random, sampleRate } = this.#server;
    this.#isSpeaking = true;
    this.#segmentStart = Math.max(this.#passed, at - PRE_ROLL_S * sampleRate);
    this.#cutAfter = Math.floor((5 + 23 * random()) * sampleRate);
    this.#say("speech_started", { at: Math.max(at, this.#segmentStart) / sampleRate });
  }

  /** @param {number} at @param {number} end */
  #stopSpeech(at, end) {
    this.#isSpeaking = false;
    this.#say("speech_stopped", { at: at / this.#server.sampleRate });
    this.#close(end);
  }

  /** The segment's audio is complete; its final comes later. @param {number} end */
  #close(end) {
    const start = this.#segmentStart;
    if (end <= start) {
      return; // silence behind a cut has no words
    }
    this.#segmentStart = this.#passed = Math.floor(end);
    this.#numUndone += this.#passed - start;
    this.#pending.push({ start, end: this.#passed });
    if (this.#pending.length === 1) {
      this.#transcribeNext();
    }
  }

  #transcribeNext() {
    const { clock, random, sampleRate, heard } = this.#server;
    clock.setTimeout(
      () => {
        const { start, end } = /** @type {{start: number, end: number}} */ (this.#pending.shift());
        this.#numUndone -= end - start;
        const text = String(heard.length);
        heard.push(this.#samples.slice(start, end));
        const segment = this.#numSegments;
        this.#numSegments += 1;
        this.#say("final", { segment, start: start / sampleRate, end: end / sampleRate, text });
        if (this.#pending.length > 0) {
          this.#transcribeNext();
        }
        this.#read();
      },
      20 + 1500 * random(),
    );
  }

  /** Everything was listened to: finalise what is open, and end once its final has been told. */
  #endIfDue() {
    if (this.#end === null || this.isOver) {
      return;
    }
    const { sampleRate } = this.#server;
    if (this.#isSpeaking || this.#restIsVoiced) {
      this.#segmentStart = this.#isSpeaking ? this.#segmentStart : this.#passed;
      this.#isSpeaking = false;
      this.#close(this.#numRead);
    }
    if (this.#pending.length > 0) {
      return;
    }
    const { type, code } = this.#end;
    const done = { audio_s: this.#numRead / sampleRate, segments: this.#numSegments };
    this.#say(type, type === "done" ? done : { code });
    this.#socket.hangUp(type === "done" ? 1000 : 1012);
    this.isOver = true;
  }

  /** Of the last frame, which is not complete. */
  get #restIsVoiced() {
    return this.#samples.subarray(this.#numListened, this.#numRead).some((sample) => sample !== 0);
  }

  /** @param {any} type @param {Record<string, unknown>} [fields] */
  #say(type, fields) {
    if (!this.isOver) {
      this.#seq += 1;
      this.#socket.say(message(type, { seq: this.#seq, ...fields }));
    }
  }
}
