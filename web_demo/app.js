/**
 * The page: wires its buttons to a Listening, and what that hears to the views.
 *
 * Decides what each button does when. How audio is captured, carried and shown is the other
 * modules' business.
 */

import { CaptionStream } from "./caption_stream.js";
import { byId } from "./dom.js";
import { FiguresView } from "./figures_view.js";
import { Listening } from "./listening.js";
import { listMicrophones, Microphone } from "./microphone.js";
import { STREAM_PATH } from "./protocol.js";
import { Recording } from "./recording.js";
import { fetchModel, KeyRequiredError, refusal } from "./server_info.js";
import { Settings } from "./settings.js";
import { shifted } from "./splice.js";
import { TimelineView } from "./timeline_view.js";
import { Transcript } from "./transcript.js";
import { TranscriptActions } from "./transcript_actions.js";
import { TranscriptView } from "./transcript_view.js";

/** @import { AudioSource, SourceEvents } from "./listening.js" */
/** @import { ServerMessage } from "./protocol.js" */
/** @import { StreamState } from "./stream_state.js" */

const FIGURES_MS = 100; // between updates of what is measured; the eye follows no faster
const PHASES = {
  idle: "Ready",
  connecting: "Connecting…",
  open: "Listening",
  reconnecting: "Reconnecting…",
  stopping: "Finishing…",
  done: "Done",
  failed: "Stopped",
};

const start = byId("start", HTMLButtonElement);
const startLabel = /** @type {HTMLElement} */ (start.querySelector(".label"));
const sample = byId("sample", HTMLButtonElement);
const open = byId("open", HTMLButtonElement);
const file = byId("file", HTMLInputElement);
const mute = byId("mute", HTMLButtonElement);
const state = byId("state", HTMLElement);
const notice = byId("notice", HTMLElement);
const drop = byId("drop", HTMLElement);

const settings = new Settings(() => void meetModel());
const transcript = new Transcript();
const transcriptView = new TranscriptView();
const timelineView = new TimelineView();
const figures = new FiguresView();
const actions = new TranscriptActions(transcript, transcriptView, {
  durationS,
  notify: (sentence) => showNotice("info", sentence),
});

/** @type {Listening | null} */
let listening = null;
/** @type {WakeLockSentinel | null} */
let wakeLock = null;
/** Where the running or the next listening begins in the transcript. */
let origin = { atS: 0, numSegments: 0 };
let isFromMicrophone = true; // what the transcript holds: a microphone goes on in it

// --- what the buttons do -----------------------------------------------------------------------

start.addEventListener("click", () => {
  if (!listening) void listen((events) => openMicrophone(events), true);
  else if (listening.isStopping) listening.giveUp();
  else void listening.stop();
});
sample.addEventListener("click", () =>
  listenToRecording(new URL("sample.flac", document.baseURI).href),
);
open.addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  const [chosen] = file.files ?? [];
  if (chosen) listenToRecording(chosen);
  file.value = ""; // the same file can be chosen again
});
mute.addEventListener("click", () => {
  if (!listening) return;
  listening.muted = !listening.muted;
  mute.setAttribute("aria-pressed", String(listening.muted));
});

document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  drop.hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.hidden = true; // the pointer left the window
});
document.addEventListener("drop", (event) => {
  const [dropped] = event.dataTransfer?.files ?? [];
  drop.hidden = true;
  if (!dropped) return;
  event.preventDefault();
  if (listening) showNotice("warning", "Stop first, then drop the recording again.");
  else listenToRecording(dropped);
});

document.addEventListener("visibilitychange", () => void stayAwake());
addEventListener("beforeunload", (event) => {
  if (listening) event.preventDefault(); // closing the tab would lose the last words
});
navigator.mediaDevices?.addEventListener("devicechange", () => void offerMicrophones());

// --- one listening -----------------------------------------------------------------------------

/** @param {SourceEvents} events */
async function openMicrophone(events) {
  const { deviceId, echoCancellation } = settings;
  const microphone = await Microphone.open({ deviceId, echoCancellation, ...events });
  void offerMicrophones(); // with permission they have names
  return microphone;
}

/** @param {Blob | string} source */
function listenToRecording(source) {
  void listen((events) => Recording.open({ source, aloud: settings.aloud, ...events }), false);
}

/**
 * @param {(events: SourceEvents) => Promise<AudioSource>} openSource
 * @param {boolean} fromMicrophone
 */
async function listen(openSource, fromMicrophone) {
  if (listening || !settings.check()) return;
  // A recording's times are its own; a microphone goes on where it was stopped.
  if (!fromMicrophone || !isFromMicrophone) actions.putAway();
  isFromMicrophone = fromMicrophone;
  origin = { atS: durationS(), numSegments: transcript.finals.length };
  showNotice("info", "");
  const opened = new Listening({
    openSource,
    openStream: (options) =>
      new CaptionStream({
        url: new URL(STREAM_PATH.slice(1), document.baseURI).href.replace(/^http/, "ws"),
        key: settings.key,
        start: settings.start,
        probe: refusal,
        ...options,
      }),
    onMessage: receive,
    onState: showState,
    onEnd: (error) => end(error),
  });
  listening = opened;
  showState({ phase: "connecting", sentence: "" });
  showRunning(true);
  try {
    await opened.start();
    if (listening !== opened) return; // stopped while permission was being asked
    mute.disabled = false;
    timelineView.run(opened.timeline);
  } catch (error) {
    if (listening === opened) end(/** @type {Error} */ (error));
  }
}

/** @param {ServerMessage} message */
function receive(message) {
  const here = shifted(message, origin);
  figures.receive(here);
  transcript.receive(here);
  if (here.type === "final") {
    transcriptView.addFinal(here);
    actions.update(true);
  } else if (here.type === "warning") {
    showNotice("warning", here.message);
  } else if (here.type === "error") {
    showNotice("error", here.message);
  }
  transcriptView.showPartial(transcript.partial);
}

/** @param {Pick<StreamState, "phase" | "sentence">} now */
function showState({ phase, sentence }) {
  const before = state.dataset.phase;
  state.dataset.phase = phase;
  state.textContent = PHASES[phase];
  startLabel.textContent = startWords();
  if (phase === "reconnecting") {
    transcript.dropPartial(); // its audio is sent again
    showNotice("warning", sentence);
  } else if (phase === "open" && before === "reconnecting") {
    showNotice("info", sentence);
  }
}

/** @param {Error | null} error */
function end(error) {
  if (listening) figures.show(listening); // the last words have just come
  listening = null;
  transcript.dropPartial();
  transcriptView.showPartial(null);
  timelineView.stop();
  figures.rest();
  showState({ phase: error ? "failed" : "done", sentence: "" });
  showRunning(false);
  if (error) showNotice("error", error.message);
  if (error instanceof KeyRequiredError) settings.askForKey();
}

// --- what is shown -----------------------------------------------------------------------------

/** How long the transcript is. */
function durationS() {
  const heardS = listening ? origin.atS + listening.audioS : 0;
  return Math.max(heardS, transcript.finals.at(-1)?.end ?? 0);
}

function startWords() {
  if (!listening) return "Start microphone";
  return listening.isStopping ? "Do not wait" : "Stop";
}

/** @param {boolean} isRunning */
function showRunning(isRunning) {
  start.dataset.running = String(isRunning);
  startLabel.textContent = startWords();
  sample.disabled = isRunning;
  open.disabled = isRunning;
  mute.disabled = true;
  mute.setAttribute("aria-pressed", "false");
  settings.lock(isRunning);
  actions.update(isRunning);
  document.title = isRunning ? "● Starling: live captions" : "Starling: live captions";
  void stayAwake();
}

/**
 * @param {"info" | "warning" | "error"} kind
 * @param {string} sentence nothing is shown where it is empty
 */
function showNotice(kind, sentence) {
  notice.dataset.kind = kind;
  notice.textContent = sentence;
  notice.hidden = sentence === "";
}

setInterval(() => {
  if (listening) figures.show(listening);
}, FIGURES_MS);

/** A phone that falls asleep stops its microphone. */
async function stayAwake() {
  if (!listening) {
    await wakeLock?.release();
    wakeLock = null;
  } else if (document.visibilityState === "visible" && "wakeLock" in navigator) {
    try {
      wakeLock = await navigator.wakeLock.request("screen");
    } catch {
      wakeLock = null; // the battery is low, or the page is not visible any more
    }
  }
}

async function offerMicrophones() {
  settings.offerMicrophones(await listMicrophones());
}

/** What the server runs, and whether it wants a key. */
async function meetModel() {
  try {
    const model = await fetchModel(settings.key);
    figures.showModel(model.name);
    settings.offer(model);
    if (notice.dataset.kind === "error") showNotice("info", "");
  } catch (error) {
    showNotice("error", /** @type {Error} */ (error).message);
    if (error instanceof KeyRequiredError) settings.askForKey();
  }
}

void meetModel();
void offerMicrophones();
