/**
 * Draws the outline of a soundtrack, and marks where something happens in the picture.
 *
 * It is drawn once; the cursor is an element that moves, because drawing five canvases per frame would be slow.
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {[number, number][]} peaks lowest and highest sample of equal parts, in [-1, 1]
 * @param {{seconds: number, loop: number, events: number[], loudest: number}} scale the canvas is `loop` seconds wide
 */
export function drawWaveform(canvas, peaks, { seconds, loop, events, loudest }) {
  const style = getComputedStyle(canvas);
  const dots = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  canvas.width = Math.round(width * dots);
  canvas.height = Math.round(height * dots);
  const paint = canvas.getContext("2d");
  if (!paint) return;
  paint.scale(dots, dots);
  marks(paint, style.getPropertyValue("--mark"), events.map((second) => (second / loop) * width), height);
  paint.fillStyle = style.getPropertyValue("--wave");
  const middle = height / 2, tall = (height / 2 - 3) / (loudest || 1);
  const span = width * Math.min(1, seconds / loop);
  for (let x = 0; x < span; x++) {
    const from = Math.floor((x / span) * peaks.length);
    const to = Math.max(from + 1, Math.ceil(((x + 1) / span) * peaks.length));
    let low = 0, high = 0;
    for (const peak of peaks.slice(from, to)) {
      low = Math.min(low, peak[0]);
      high = Math.max(high, peak[1]);
    }
    paint.fillRect(x, middle - high * tall - 0.5, 1, (high - low) * tall + 1);
  }
}

/** @param {CanvasRenderingContext2D} paint @param {string} colour @param {number[]} places @param {number} height */
function marks(paint, colour, places, height) {
  paint.fillStyle = colour;
  for (const x of places) {
    for (let y = 0; y < height; y += 5) paint.fillRect(Math.round(x), y, 1, 3);
    paint.beginPath();
    paint.moveTo(x - 3.5, 0);
    paint.lineTo(x + 4.5, 0);
    paint.lineTo(x + 0.5, 5);
    paint.fill();
  }
}

/** @param {import("./session.js").Track[]} tracks @returns {number} the largest peak, to which all outlines are scaled */
export function loudestPeak(tracks) {
  return Math.max(0.01, ...tracks.flatMap(({ peaks }) => peaks.map(([low, high]) => Math.max(-low, high))));
}
