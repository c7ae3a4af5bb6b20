/* 8-bit heat to colour. Raw values are sacred: a palette maps value/scale, nothing is stretched per picture.
   heatCanvas(explanation, {scale})  -> a small canvas (heat's own size) to draw over explanation.area
   sharedScale([explanations])       -> the one absolute scale of maps shown side by side
   valueAt(explanation, x, y)        -> the raw value under a frame pixel, or null outside the area
   drawLegend(canvas, signed)        -> the colour bar of the current palette
   Unsigned maps use a perceptual sequential palette whose alpha grows with the value; signed ones a diverging
   palette with nothing at zero. Palettes are lists of sRGB stops, evenly spaced. */
import { state } from './state.js';

const FADE = 0.6;                   // as in explainers/render.py, so that files look like the page

export const SEQUENTIAL = {
  inferno: [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]],
  viridis: [[68, 1, 84], [70, 50, 127], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 194, 109], [159, 218, 58], [253, 231, 37]],
  cividis: [[0, 34, 78], [39, 62, 108], [77, 89, 109], [107, 116, 116], [138, 142, 119], [172, 170, 111], [210, 200, 95], [254, 232, 56]],
};
export const DIVERGING = {
  'blue-red': [[5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [247, 247, 247], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31]],
  'purple-green': [[64, 0, 75], [118, 42, 131], [153, 112, 171], [194, 165, 207], [247, 247, 247], [166, 219, 160], [90, 174, 97], [27, 120, 55], [0, 68, 27]],
  'purple-orange': [[45, 0, 75], [84, 39, 136], [128, 115, 172], [178, 171, 210], [247, 247, 247], [253, 184, 99], [224, 130, 20], [179, 88, 6], [127, 59, 8]],
};

export const paletteFor = (signed) => (signed ? DIVERGING[state.diverging] : SEQUENTIAL[state.palette])
  ?? (signed ? DIVERGING['blue-red'] : SEQUENTIAL.inferno);

/* One value, -1..1 or 0..1 of the scale, as [r, g, b, alpha 0..255]. */
export function colour(value, signed, stops = paletteFor(signed)) {
  const place = Math.min(1, Math.max(0, signed ? (value + 1) / 2 : value)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(place));
  const rest = place - low;
  const alpha = 255 * Math.min(1, Math.abs(value)) ** FADE;
  return [...[0, 1, 2].map((i) => stops[low][i] + rest * (stops[low + 1][i] - stops[low][i])), alpha];
}

const raw = (byte, signed, scale) => (signed ? ((byte - 128) / 127) * scale : (byte / 255) * scale);

export function heatCanvas(explanation, { scale = explanation.scale } = {}) {
  const [height, width] = explanation.shape;
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  if (explanation.empty || !(scale > 0)) return canvas;
  const stops = paletteFor(explanation.signed);
  const table = Array.from({ length: 256 }, (_, byte) =>
    colour(raw(byte, explanation.signed, explanation.scale) / scale, explanation.signed, stops));
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  explanation.heat.forEach((byte, i) => image.data.set(table[byte], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

export const sharedScale = (explanations) =>
  Math.max(0, ...explanations.filter((e) => e?.shape && !e.empty).map((e) => e.scale));

export function valueAt(explanation, x, y) {
  const [left, top, right, bottom] = explanation.area;
  const [height, width] = explanation.shape;
  const column = Math.floor(((x - left) / (right - left)) * width);
  const row = Math.floor(((y - top) / (bottom - top)) * height);
  if (column < 0 || row < 0 || column >= width || row >= height) return null;
  return raw(explanation.heat[row * width + column], explanation.signed, explanation.scale);
}

export function drawLegend(canvas, signed) {
  canvas.width = 256;
  canvas.height = 1;
  const context = canvas.getContext('2d');
  const image = context.createImageData(256, 1);
  const stops = paletteFor(signed);
  for (let i = 0; i < 256; i += 1) {
    image.data.set([...colour(signed ? (i / 255) * 2 - 1 : i / 255, signed, stops).slice(0, 3), 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}
