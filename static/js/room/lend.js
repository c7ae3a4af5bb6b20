/* A viewer's camera for the presenter: offered by a button, used once the presenter takes it, until either stops.
   Two pictures at most are under way, as for every camera. */
import { on } from '../bus.js';
import { cameraProblem } from '../camera.js';
import { el } from '../dom.js';
import { encode } from '../encoding.js';
import { say } from '../socket.js';
import { state } from '../state.js';
import { warn } from '../status.js';

const MOST = 2;
const SIDE = 640;
const SILENCE = 5000;
const PAUSE = 250;
const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
let stream = null;
let lent = false;
let serial = 0;
let timer = null;
let encoding = false;
const flights = new Map();          // seq -> when it was sent

export function createLending() {
  const button = el('button', { type: 'button', id: 'watch-lend', 'aria-pressed': 'false', onclick: () => (stream ? stop() : offer()) });

  const draw = () => {
    const words = !stream ? 'Lend my camera' : lent ? 'Stop my camera' : 'Take camera back';
    if (button.textContent !== words) button.textContent = words;
    button.setAttribute('aria-pressed', String(Boolean(stream)));
  };

  async function offer() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: 'environment', width: { ideal: 1280 }, height: { ideal: 720 } } });
    } catch (error) {
      warn(cameraProblem(error).replace(/, then press Camera again|, or open a picture instead|Open a picture instead\.?|Pictures work without it\./g, ''));
      return;
    }
    stream.getVideoTracks()[0].addEventListener('ended', stop);
    video.srcObject = stream;
    await video.play();
    say('lend', { id: 'room:lend' });
    draw();
  }

  function stop() {
    say('lend', { on: false });
    end();
  }

  function end() {
    clearTimeout(timer);
    stream?.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
    lent = false;
    flights.clear();
    draw();
  }

  async function pump() {
    clearTimeout(timer);
    if (!lent || !stream || encoding) return;
    const now = performance.now();
    for (const [seq, at] of flights) if (now - at > SILENCE) flights.delete(seq);
    if (flights.size < MOST && !document.hidden) {
      serial += 1;
      const seq = serial;
      flights.set(seq, now);
      encoding = true;
      try {
        const { jpeg, bitmap } = await encode(video, { side: SIDE, bytes: state.ready?.limits.jpeg_bytes, pixels: state.ready?.limits.jpeg_pixels });
        bitmap.close();
        if (lent) say('frame', { seq, jpeg });
      } finally {
        encoding = false;
      }
    }
    timer = setTimeout(pump, flights.size < MOST ? 20 : PAUSE);
  }

  on('room:lent', ({ on: now }) => {
    if (!stream) return;
    if (lent && !now) end();
    lent = now;
    draw();
    pump();
  });
  on('room:credit', credit);
  on('state:connection', (connection) => { if (connection !== 'open' && stream) end(); });
  on('room:ended', () => { if (stream) end(); });

  function credit(news) {
    if (!flights.delete(news.seq)) return;
    if (!news.message) pump();      // what was not wanted is not followed by another at once
    else timer = setTimeout(pump, PAUSE);
  }

  draw();
  return button;
}
