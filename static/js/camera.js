/* Where pictures come from: the camera, files, the clipboard, presets. Frames leave as JPEG, 640 px at most
   while live; stills up to 1280 px, always under the server's byte limit. When a live one is taken says pace.js,
   how it is encoded encoding.js; nobody looks at a hidden page, so none is taken there.
   startCamera(deviceId?), stopCamera(), freeze(), unfreeze(), openFile(blob, title), openPicture(picture) */
import { emit, on } from './bus.js';
import { encode } from './encoding.js';
import { hasCredit, pace, sendFrame, untilNext } from './socket.js';
import { set, state } from './state.js';

const STILL_SIDE = 1280;
const STALE = 250;                  // so old a picture is taken again
const SOON = 4;                     // how soon it is looked again whether the camera has another
const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
let stream = null;
let capturing = false;
let next = null;                    // the timer of the next live picture
let taken = 0;                      // when the last live picture was taken
let stamp = null;                   // which of the camera's pictures it was
let shown = null;                   // the live frame that is on the stage
let borrowed = false;               // a viewer lends its camera

export const cameraVideo = video;

/* Calls back once the camera has a new picture, where the browser can tell; elsewhere before the next repaint. */
export const whenMoved = (then) => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(then) : requestAnimationFrame(then));

/* Why there is no camera, as a sentence that says what to do. */
export function cameraProblem(error) {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
    return 'Browsers give the camera only to secure pages. Open this page as http://localhost:4200 on the machine it runs on, or serve it over https.';
  }
  return {
    NotAllowedError: 'The camera was refused. Allow it for this page in the address bar, then press Camera again. Pictures work without it.',
    NotFoundError: 'No camera was found. Plug one in and press Camera again, or open a picture instead.',
    NotReadableError: 'The camera is in use by another program. Close it there, then press Camera again.',
    OverconstrainedError: 'That camera cannot be opened any more. Choose another one from the list.',
    AbortError: 'The camera stopped while it was starting. Press Camera again.',
  }[error?.name] ?? `The camera could not be opened: ${error?.message ?? error}. Open a picture instead.`;
}

export async function startCamera(deviceId) {
  stopTracks();
  const asking = setTimeout(() => emit('camera-asking', true), 400);
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, ...(deviceId ? { deviceId: { exact: deviceId } } : {}) },
    });
  } catch (error) {
    set({ source: state.picture ? 'still' : 'none' });
    emit('camera-problem', cameraProblem(error));
    return;
  } finally {
    clearTimeout(asking);
    emit('camera-asking', false);
  }
  stream.getVideoTracks()[0].addEventListener('ended', () => {
    stopCamera();
    emit('camera-problem', 'The camera was unplugged or switched off. Plug it in and press Camera again.');
  });
  video.srcObject = stream;
  await video.play();
  set({ picture: null, source: 'camera' });
  emit('devices', await cameras());
  pump();
}

export async function cameras() {
  const devices = await navigator.mediaDevices?.enumerateDevices?.() ?? [];
  const used = stream?.getVideoTracks()[0]?.getSettings().deviceId;
  return devices.filter(({ kind }) => kind === 'videoinput')
    .map(({ deviceId, label }, i) => ({ deviceId, label: label || `Camera ${i + 1}`, used: deviceId === used }));
}

export function stopCamera() {
  stopTracks();
  set({ source: state.picture ? 'still' : 'none' });
}

function stopTracks() {
  if (borrowed) emit('borrowed', false);
  borrowed = false;
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  video.srcObject = null;
}

export const cameraOn = () => Boolean(stream) || borrowed;
export const hasVideo = () => Boolean(stream);

/* Another's camera: its pictures come from the server (room/given.js), and count as this page's. */
export function borrow(on) {
  if (on === borrowed) return;
  stopTracks();
  borrowed = on;
  set({ picture: null, source: on ? 'camera' : 'none' });
}

const limits = () => ({ bytes: state.ready?.limits.jpeg_bytes, pixels: state.ready?.limits.jpeg_pixels });

/* What the camera sees now, to be encoded, or null when that was taken already: the same one again would tell nothing
   new. Its stamp is asked for, and not requestVideoFrameCallback, which makes the browser go through a repaint of the
   page for each picture of the camera. Without stamps every picture is a new one. */
function newest() {
  if (!window.VideoFrame) return video;
  const frame = new VideoFrame(video);
  if (frame.timestamp === stamp && performance.now() - taken < STALE) {
    frame.close();
    return null;
  }
  stamp = frame.timestamp;
  return frame;
}

/* Takes a live picture, if one may be taken; else as soon as one may. */
async function pump() {
  clearTimeout(next);
  if (capturing || state.source !== 'camera' || !stream || document.hidden || video.readyState < 2) return;
  const wait = untilNext();
  if (wait > 0) {
    if (wait < Infinity) next = setTimeout(pump, wait);
    return;
  }
  const source = newest();
  if (!source) {
    next = setTimeout(pump, SOON);
    return;
  }
  capturing = true;
  const start = taken = performance.now();
  try {
    const picture = await encode(source, { ...pace.form(), ...limits() });
    pace.encoded(performance.now() - start);
    if (state.source === 'camera' && hasCredit()) sendFrame({ ...picture, taken: start });
    else picture.bitmap.close();
  } finally {
    capturing = false;
  }
  pump();
}

/* live.js says which frame it has put on the stage; the one before is not needed any more. */
export function nowShown(picture) {
  if (shown && shown !== picture) shown.bitmap.close();
  shown = picture;
}

/* Who takes it keeps its bitmap open. */
export function takeShown() {
  const taken = shown;
  shown = null;
  return taken;
}

/* The very frame that is on the stage stands still (its boxes are where one has clicked); with none there yet,
   what the camera sees now. */
export async function freeze() {
  if (state.source !== 'camera') return;
  const { jpeg, bitmap, size } = takeShown() ?? await encode(video, { side: STILL_SIDE, ...limits() });
  const picture = { jpeg, bitmap, size };
  await openPicture({ ...picture, title: `Frozen ${new Date().toLocaleTimeString()}`, mirrored: state.mirror, frozen: true });
}

export function unfreeze() {
  if (!cameraOn()) return;
  if (borrowed) emit('borrowed', true);
  set({ picture: null, source: 'camera' });
  pump();
}

export async function openFile(blob, title, { uploaded = false } = {}) {
  if (state.watching) {
    emit('failure', { message: 'You watch a room, and its presenter shows the pictures. Open the page without the room’s code to show your own.' });
    return;
  }
  let bitmap;
  const limit = state.ready?.limits.upload_bytes ?? 20_000_000;
  if (blob.size > limit) {
    emit('failure', { code: 'too_large', message: `A picture may have ${limit / 1e6} MB at most; ${title} has ${(blob.size / 1e6).toFixed(1)} MB. Save it smaller and open it again.` });
    return;
  }
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: 'from-image' });
  } catch {
    emit('failure', { code: 'bad_input', message: `${title} is not a picture this browser can read. Use a JPEG, PNG or WebP file.` });
    return;
  }
  await openPicture({ ...await encode(bitmap, { side: STILL_SIDE, ...limits() }), title, uploaded });
}

/* A still: {jpeg, bitmap, size, title, mirrored?, seq?}. */
export async function openPicture(picture) {
  set({ source: 'still', picture });
}

navigator.mediaDevices?.addEventListener?.('devicechange', async () => { if (stream) emit('devices', await cameras()); });
on('credit', pump);
on('ready', pump);
document.addEventListener('visibilitychange', pump);
setInterval(pump, 250);             // wakes the loop after a stall: a lost credit, a sleeping tab
