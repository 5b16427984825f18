/**
 * Draws the time line: the sound level, where speech was heard, which stretch became which segment.
 *
 * Decides only how it looks; what there is comes from timeline.js. Draws when the screen does,
 * and not at all in a tab that nobody sees.
 */

import { byId } from "./dom.js";
import { clock } from "./wording.js";

/** @import { Timeline } from "./timeline.js" */

const TICK_S = 5;
const TEXT_PX = 11;
const SEGMENT_PX = 6; // height of the band of segments

export class TimelineView {
  #canvas = byId("timeline", HTMLCanvasElement);
  #context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d"));
  /** @type {Timeline | null} */
  #timeline = null;
  #isRunning = false;
  #widthPx = 0;
  #heightPx = 0;

  constructor() {
    new ResizeObserver(() => this.#resize()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.#resize();
  }

  /** Follows a time line until `stop`. @param {Timeline} timeline */
  run(timeline) {
    this.#timeline = timeline;
    if (this.#isRunning) return;
    this.#isRunning = true;
    const frame = () => {
      if (!this.#isRunning) return;
      this.draw();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /** Leaves what was drawn last. */
  stop() {
    this.#isRunning = false;
    this.draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#widthPx = clientWidth;
    this.#heightPx = clientHeight;
    this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
    this.#context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    this.draw();
  }

  draw() {
    const context = this.#context;
    const style = getComputedStyle(this.#canvas);
    const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    context.clearRect(0, 0, this.#widthPx, this.#heightPx);
    const timeline = this.#timeline;
    const spanS = timeline?.spanS ?? 30;
    const nowS = timeline?.nowS ?? 0;
    const beginS = Math.max(0, nowS - spanS);
    const x = (/** @type {number} */ atS) => ((atS - beginS) / spanS) * this.#widthPx;
    const levelPx = this.#heightPx - TEXT_PX - SEGMENT_PX - 8;

    context.font = `${TEXT_PX}px system-ui, sans-serif`;
    for (let atS = Math.ceil(beginS / TICK_S) * TICK_S; atS <= beginS + spanS; atS += TICK_S) {
      context.fillStyle = color("--faint");
      context.fillRect(x(atS), 0, 1, levelPx);
      context.fillStyle = color("--quiet");
      context.fillText(clock(atS), x(atS) + 4, this.#heightPx - 2);
    }
    if (!timeline) return;

    context.fillStyle = color("--heard");
    for (const { startS, endS } of timeline.speech) {
      const from = x(Math.max(startS, beginS));
      context.fillRect(from, 0, x(endS ?? nowS) - from, levelPx);
    }
    context.fillStyle = color("--level");
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(x(timeline.levels[0]?.atS ?? 0), levelPx / 2);
      for (const { atS, level } of timeline.levels) {
        // The ear hears ratios: the square root shows quiet speech beside loud.
        const tall = Math.max(1, Math.sqrt(level) * levelPx);
        context.lineTo(x(atS), (levelPx + side * tall) / 2);
      }
      context.lineTo(x(timeline.levels.at(-1)?.atS ?? 0), levelPx / 2);
    }
    context.fill();
    for (const { startS, endS, isFinal } of timeline.segments) {
      context.fillStyle = color(isFinal ? "--final" : "--tail");
      const from = x(Math.max(startS, beginS));
      const wide = Math.max(2, x(endS) - from - 2);
      context.beginPath();
      context.roundRect(from, levelPx + 3, wide, SEGMENT_PX, SEGMENT_PX / 2);
      context.fill();
    }
  }
}
