/**
 * Copy, download, clear, bring back: what can be done with a transcript.
 *
 * Decides when each is offered. Clearing is never final: what was cleared can be brought back
 * until something else is cleared.
 */

import { byId } from "./dom.js";
import { fileType, render } from "./transcript_formats.js";

/** @import { Final } from "./protocol.js" */
/** @import { Transcript } from "./transcript.js" */
/** @import { TranscriptView } from "./transcript_view.js" */

export class TranscriptActions {
  #transcript;
  #view;
  #durationS;
  #notify;
  #copy = byId("copy", HTMLButtonElement);
  #clear = byId("clear", HTMLButtonElement);
  #restore = byId("restore", HTMLButtonElement);
  #downloads = /** @type {NodeListOf<HTMLButtonElement>} */ (
    document.querySelectorAll("[data-format]")
  );
  /** @type {readonly Final[]} */
  #putAway = [];
  #isBusy = false;

  /**
   * @param {Transcript} transcript
   * @param {TranscriptView} view
   * @param {{ durationS: () => number, notify: (sentence: string) => void }} page
   */
  constructor(transcript, view, { durationS, notify }) {
    this.#transcript = transcript;
    this.#view = view;
    this.#durationS = durationS;
    this.#notify = notify;
    this.#copy.addEventListener("click", () => this.#copyText());
    this.#clear.addEventListener("click", () => this.putAway());
    this.#restore.addEventListener("click", () => this.#bringBack());
    for (const button of this.#downloads) {
      button.addEventListener("click", () => this.#download(button.dataset.format ?? "text"));
    }
  }

  /** The transcript has changed, or somebody speaks. @param {boolean} isBusy */
  update(isBusy) {
    this.#isBusy = isBusy;
    const isEmpty = this.#transcript.finals.length === 0;
    for (const button of [this.#copy, ...this.#downloads]) button.disabled = isEmpty;
    this.#clear.disabled = isEmpty || isBusy;
    this.#restore.hidden = this.#putAway.length === 0 || isBusy;
  }

  /** Begins an empty transcript; the one there was can be brought back. */
  putAway() {
    if (this.#transcript.finals.length > 0) this.#putAway = [...this.#transcript.finals];
    this.#replace([]);
  }

  #bringBack() {
    const wanted = this.#putAway;
    this.#putAway = [...this.#transcript.finals];
    this.#replace(wanted);
  }

  /** @param {readonly Final[]} finals */
  #replace(finals) {
    this.#transcript.clear();
    for (const final of finals) this.#transcript.receive(final);
    this.#view.showFinals(finals);
    this.update(this.#isBusy);
  }

  async #copyText() {
    const text = render(this.#transcript.finals, this.#durationS(), "text");
    if (await copyText(text)) this.#notify("The transcript is on the clipboard.");
    else this.#notify("The browser did not let the page copy. Download the text instead.");
  }

  /** @param {string} form */
  #download(form) {
    const content = render(this.#transcript.finals, this.#durationS(), form);
    const { extension, mime } = fileType(form);
    const url = URL.createObjectURL(new Blob([content], { type: mime }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `transcript-${new Date().toISOString().slice(0, 16).replace(":", "-")}.${extension}`;
    link.click();
    // The browser reads the blob after this task; a minute is more than it needs to begin.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

/**
 * Whether it worked. Pages on plain http have no clipboard of the modern kind.
 *
 * @param {string} text
 */
async function copyText(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
