/** Shows what is going on in figures. Decides their wording only. */

import { byId } from "./dom.js";
import { duration, languageName } from "./wording.js";

/** @import { Listening } from "./listening.js" */
/** @import { ServerMessage } from "./protocol.js" */

export class FiguresView {
  #speech = byId("speech", HTMLElement);
  #last = byId("latency-last", HTMLElement);
  #median = byId("latency-median", HTMLElement);
  #age = byId("partial-age", HTMLElement);
  #model = byId("model", HTMLElement);
  #language = byId("language", HTMLElement);
  #level = byId("level", HTMLElement);
  #levelBar = /** @type {HTMLElement} */ (this.#level.firstElementChild);

  /** @param {string} name */
  showModel(name) {
    this.#model.textContent = name;
  }

  /** What a message says by itself. @param {ServerMessage} message */
  receive(message) {
    if (message.type === "ready") this.showModel(message.model);
    else if (message.type === "speech_started") this.#showSpeech(true, "speech");
    else if (message.type === "speech_stopped") this.#showSpeech(false, "silence");
    else if (message.type === "partial" || message.type === "final") {
      this.#language.textContent = languageName(message.language);
    }
  }

  /** What has to be measured. @param {Listening} listening */
  show(listening) {
    this.#last.textContent = duration(listening.meter.lastS);
    this.#median.textContent = duration(listening.meter.medianS);
    this.#age.textContent = duration(listening.partialAgeS);
    this.#showLevel(listening.peak);
  }

  /** Nothing is heard any more; the measured figures stay to be read. */
  rest() {
    this.#showSpeech(false, "nothing");
    this.#age.textContent = duration(null);
    this.#showLevel(0);
  }

  /**
   * @param {boolean} active
   * @param {string} words
   */
  #showSpeech(active, words) {
    this.#speech.dataset.active = String(active);
    this.#speech.textContent = words;
  }

  /** @param {number} peak 0 to 1 */
  #showLevel(peak) {
    const loudness = Math.sqrt(peak); // the ear hears ratios
    this.#levelBar.style.transform = `scaleX(${loudness})`;
    this.#level.ariaValueNow = String(Math.round(100 * loudness));
  }
}
