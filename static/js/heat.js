/* 8-bit heat to colour. Raw values are sacred: a palette maps value/scale, nothing is stretched per picture.
   heatCanvas(explanation, {scale, canvas})  -> a small canvas (heat's own size) to draw over explanation.area; canvas:
                                        one to use again
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

/* The 256 colours of the bytes, each one number as it lies in the memory of an ImageData; `share` is the map's own
   scale over the one it is drawn with. Live maps come with the same one again and again. */
let latest = { table: null };
function coloursOf(signed, share) {
  const stops = paletteFor(signed);
  if (latest.stops === stops && latest.share === share) return latest.table;
  const bytes = new Uint8ClampedArray(4 * 256);
  for (let byte = 0; byte < 256; byte += 1) bytes.set(colour(raw(byte, signed, share), signed, stops), 4 * byte);
  latest = { stops, share, table: new Uint32Array(bytes.buffer) };
  return latest.table;
}

export function heatCanvas(explanation, { scale = explanation.scale, canvas = document.createElement('canvas') } = {}) {
  const { heat, signed, shape: [height, width] } = explanation;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  if (!explanation.empty && scale > 0) {
    const table = coloursOf(signed, explanation.scale / scale);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[heat[i]];
  }
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
