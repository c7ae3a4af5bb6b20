/* Pictures to JPEG: encode(source, {side, quality, bytes, pixels}) -> {jpeg, bitmap, size}, scaled down to `side`
   and `pixels`, lowered in quality until it has no more than `bytes`. A source that is an ImageBitmap or a VideoFrame
   is used up.
   In a worker where the browser can, so that the page's own frames are not late; else here. */
const QUALITIES = [0.7, 0.5, 0.3];
const waiting = new Map();          // id -> {resolve, reject}
let serial = 0;
let worker = null;

/* The worker is believed in when it has encoded a picture: there are browsers whose OffscreenCanvas cannot. */
function start() {
  if (!window.Worker || !window.OffscreenCanvas?.prototype.convertToBlob || !window.ImageBitmap) return;
  const made = new Worker('/static/js/encoding-worker.js', { type: 'module' });
  made.addEventListener('message', ({ data: { id, ready, problem, ...picture } }) => {
    if (ready) worker = made;
    const entry = waiting.get(id);
    waiting.delete(id);
    if (problem) entry?.reject(new Error(problem));
    else entry?.resolve(picture);
  });
  made.addEventListener('error', (event) => {
    event.preventDefault();
    worker = null;
    for (const { reject } of waiting.values()) reject(new Error('the encoder ended'));
    waiting.clear();
  });
}

export async function encode(source, { side, quality = 0.85, bytes = 300_000, pixels = 2e6 }) {
  const [width, height] = [source.videoWidth || source.displayWidth || source.width,
    source.videoHeight || source.displayHeight || source.height];
  const scale = Math.min(1, side / Math.max(width, height), Math.sqrt(pixels / (width * height)));
  const size = [Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale))];
  const qualities = [quality, ...QUALITIES.filter((lower) => lower < quality)];
  const made = worker ? await there(await handle(source), size, qualities, bytes) : await here(source, size, qualities, bytes);
  return { ...made, size };
}

/* What a worker can draw: the camera's frame as it is (nothing is read back here), or a copy of it. */
const handle = (source) => (!(source instanceof HTMLVideoElement) ? source
  : window.VideoFrame ? new VideoFrame(source) : createImageBitmap(source));

function there(source, size, qualities, bytes) {
  const id = ++serial;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, source, size, qualities, bytes }, [source]);
  });
}

async function here(source, [width, height], qualities, bytes) {
  const desk = Object.assign(document.createElement('canvas'), { width, height });
  const context = desk.getContext('2d', { alpha: false, willReadFrequently: true });
  context.fillStyle = '#fff';       // transparent pictures lie on white
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(source, 0, 0, width, height);
  source.close?.();
  const [bitmap, first] = await Promise.all([createImageBitmap(desk), blobOf(desk, qualities[0])]);
  let blob = first;
  for (const quality of qualities.slice(1)) {
    if (blob.size <= bytes) break;
    blob = await blobOf(desk, quality);
  }
  return { jpeg: await blob.arrayBuffer(), bitmap };
}

const blobOf = (desk, quality) => new Promise((resolve) => { desk.toBlob(resolve, 'image/jpeg', quality); });

start();
