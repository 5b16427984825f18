/**
 * The settings form: what it holds, what it remembers, what `start` becomes.
 *
 * Decides which choices a model leaves; ranges and defaults are those of protocol.js. Settings are
 * kept in the browser between visits; an API key only until the tab is closed.
 */

import { byId, create } from "./dom.js";
import { START_FIELDS } from "./protocol.js";
import { languageName } from "./wording.js";

/** @import { Start } from "./protocol.js" */
/** @import { Model } from "./server_info.js" */

const STORED = "starling.settings";
const STORED_KEY = "starling.key";

export class Settings {
  #form = byId("settings-form", HTMLFormElement);
  #fields = /** @type {HTMLFieldSetElement} */ (this.#form.querySelector("fieldset"));
  #details = byId("settings", HTMLDetailsElement);
  #language = byId("setting-language", HTMLSelectElement);
  #task = byId("setting-task", HTMLSelectElement);
  #interval = byId("setting-interval", HTMLInputElement);
  #silence = byId("setting-silence", HTMLInputElement);
  #prompt = byId("setting-prompt", HTMLInputElement);
  #words = byId("setting-words", HTMLInputElement);
  #echo = byId("setting-echo", HTMLInputElement);
  #aloud = byId("setting-aloud", HTMLInputElement);
  #key = byId("setting-key", HTMLInputElement);
  #device = byId("device", HTMLSelectElement);
  /** @type {Record<string, unknown>} */
  #stored;

  /** @param {() => void} onKey another API key was given */
  constructor(onKey) {
    limit(this.#interval, "interim_interval_ms");
    limit(this.#silence, "endpoint_silence_ms");
    this.#echo.checked = true;
    this.#aloud.checked = true;
    this.#stored = readStored();
    for (const [id, value] of Object.entries(this.#stored)) {
      const field = this.#remembered.find((one) => one.id === id);
      if (!field) continue;
      if (field instanceof HTMLInputElement && field.type === "checkbox") {
        field.checked = value === true;
      } else {
        field.value = String(value);
      }
    }
    this.#key.value = permitted(() => sessionStorage.getItem(STORED_KEY)) ?? "";
    this.#form.addEventListener("change", () => this.#store());
    this.#device.addEventListener("change", () => this.#store());
    this.#key.addEventListener("change", onKey);
    this.#form.addEventListener("submit", (event) => event.preventDefault());
  }

  get #remembered() {
    return [
      this.#language,
      this.#task,
      this.#interval,
      this.#silence,
      this.#prompt,
      this.#words,
      this.#echo,
      this.#aloud,
      this.#device,
    ];
  }

  /** What `start` asks for, the sample rate left to the source of the audio. */
  get start() {
    /** @type {Omit<Start, "type" | "sample_rate">} */
    const start = {
      language: this.#language.value || null,
      task: this.#task.value,
      prompt: this.#prompt.value,
      interim_interval_ms: this.#interval.valueAsNumber,
      endpoint_silence_ms: this.#silence.valueAsNumber,
      word_timestamps: this.#words.checked,
    };
    return start;
  }

  get deviceId() {
    return this.#device.value || undefined;
  }

  get echoCancellation() {
    return this.#echo.checked;
  }

  /** Whether recordings are played in real time. */
  get aloud() {
    return this.#aloud.checked;
  }

  /** The API key; undefined where none was given. */
  get key() {
    return this.#key.value.trim() || undefined;
  }

  /** Whether every field holds what it takes; shows the first that does not. */
  check() {
    if (!this.#form.checkValidity()) this.#details.open = true;
    return this.#form.reportValidity();
  }

  /** Settings hold from one start to its end. @param {boolean} locked */
  lock(locked) {
    this.#fields.disabled = locked;
    this.#device.disabled = locked;
  }

  askForKey() {
    this.#details.open = true;
    this.#key.focus();
  }

  /** Offers what the model can. @param {Model} model */
  offer(model) {
    const named = model.languages.map((code) => ({ code, name: languageName(code) }));
    named.sort((one, other) => one.name.localeCompare(other.name));
    const options = named.map(({ code, name }) => option(code, name));
    if (options.length !== 1) options.unshift(option("", "Detect"));
    this.#choose(this.#language, options);
    for (const task of this.#task.options) task.disabled = !model.tasks.includes(task.value);
    if (this.#task.selectedOptions[0]?.disabled)
      this.#task.value = String(START_FIELDS.task.default);
  }

  /** @param {readonly { id: string, label: string }[]} microphones */
  offerMicrophones(microphones) {
    const options = microphones.map(({ id, label }) => option(id, label));
    this.#choose(this.#device, [option("", "Default microphone"), ...options]);
  }

  /**
   * @param {HTMLSelectElement} select
   * @param {HTMLOptionElement[]} options
   */
  #choose(select, options) {
    const wanted = select.value || String(this.#stored[select.id] ?? "");
    select.replaceChildren(...options);
    const isOffered = options.some(({ value }) => value === wanted);
    select.value = isOffered ? wanted : (options[0]?.value ?? "");
  }

  #store() {
    this.#stored = Object.fromEntries(
      this.#remembered.map((field) => [
        field.id,
        field instanceof HTMLInputElement && field.type === "checkbox"
          ? field.checked
          : field.value,
      ]),
    );
    permitted(() => localStorage.setItem(STORED, JSON.stringify(this.#stored)));
    permitted(() => sessionStorage.setItem(STORED_KEY, this.#key.value));
  }
}

/**
 * @param {HTMLInputElement} input
 * @param {"interim_interval_ms" | "endpoint_silence_ms"} field
 */
function limit(input, field) {
  const { min, max, default: usual } = START_FIELDS[field];
  input.min = String(min);
  input.max = String(max);
  input.value = String(usual);
  input.required = true;
}

/**
 * @param {string} value
 * @param {string} label
 */
function option(value, label) {
  const made = create("option", label);
  made.value = value;
  return made;
}

/** @returns {Record<string, unknown>} */
function readStored() {
  try {
    return JSON.parse(permitted(() => localStorage.getItem(STORED)) ?? "{}") ?? {};
  } catch {
    return {}; // written by something else: the defaults hold
  }
}

/**
 * What comes of an access to the browser's storage; null where the browser forbids it, and then
 * settings last as long as the page.
 *
 * @template T
 * @param {() => T} access
 * @returns {T | null}
 */
function permitted(access) {
  try {
    return access();
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}
