/* Every state has words: the footer's lamp and sentence, the progress with its Stop, alerts, and what stands in
   the middle of an empty stage. */
import { on } from './bus.js';
import { startCamera } from './camera.js';
import { $ } from './dom.js';
import { figures } from './live.js';
import { notice } from './stage.js';
import { modelInfo, state } from './state.js';

const PATIENCE = 600;               // a wait shorter than this shows no progress bar
let busyTimer = null;
let alertTimer = null;
let cameraWords = null;
let watchWords = 'Coming in…';        // of a page that watches a room, before the first picture
let asking = false;                 // the browser's own question about the camera is open
const jobs = new Map();             // name -> {words, progress, stop}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

export function busy(name, job) {
  if (job) jobs.set(name, job);
  else jobs.delete(name);
  if (!busyTimer) busyTimer = setTimeout(drawBusy, $('#busy').hidden ? PATIENCE : 0);
}

function drawBusy() {
  busyTimer = null;
  const job = [...jobs.values()].at(-1);
  $('#busy').hidden = !job;
  if (!job) return;
  $('#busy-words').textContent = job.words;
  if (job.progress == null) $('#busy-bar').removeAttribute('value');
  else $('#busy-bar').value = job.progress;
  $('#stop').hidden = !job.stop;
}

export function stopNewest() {
  const [name, job] = [...jobs.entries()].at(-1) ?? [];
  job?.stop?.();
  if (name) busy(name, null);
  return Boolean(name);
}

export function warn(message) {
  clearTimeout(alertTimer);
  $('#alert').hidden = false;
  $('#alert p').textContent = message;
  alertTimer = setTimeout(() => { $('#alert').hidden = true; }, 12000);
}

function line() {
  const where = { none: 'ready', camera: 'live', still: state.picture?.frozen ? 'frozen' : 'picture' }[state.source];
  if (state.connection === 'missing') return 'The page’s socket client is not on the server. Run “make run” (or “python app.py fetch”) and reload.';
  if (state.connection === 'connecting') return jobs.get('fetch')?.words ?? 'Connecting to the server…';
  if (state.connection === 'gone' && state.watching) return 'The connection is gone. This page comes back by itself.';
  if (state.connection !== 'open' && state.locked) return 'The server asks for its link again: open the newest one that it printed.';
  if (state.connection === 'gone' && state.closing) return 'The server is closing. This page comes back by itself when it is there again.';
  if (state.connection === 'gone') return 'The server is gone. Start it again; this page comes back by itself.';
  if (state.waiting) return 'The server has not answered for a while. Waiting for it…';
  return `${modelInfo()?.title ?? state.configured?.model ?? ''} · ${where}`;
}

function draw() {
  $('#lamp').dataset.state = state.connection !== 'open' ? state.connection : state.waiting ? 'waiting' : state.source;
  const words = line();
  if ($('#status-words').textContent !== words) $('#status-words').textContent = words;
  middle();
}

/* What stands on the stage while there is no picture, or while a model comes. */
function middle() {
  if (state.connection === 'missing' || (state.connection === 'connecting' && !state.ready)) notice(line());
  else if (state.watching && state.source === 'none') notice(watchWords);
  else if (state.configuring && jobs.has('fetch')) notice(jobs.get('fetch').words);
  else if (asking) notice('The browser asks whether this page may use the camera. Allow it there to go on.');
  else if (cameraWords && state.source === 'none') {
    notice(cameraWords, { kind: 'problem', label: 'Try the camera again', action: () => startCamera() });
  } else if (state.source === 'none') {
    notice('Show it something: switch the camera on, choose a picture below, or drop one here.',
      { label: 'Switch the camera on', action: () => startCamera() });
  } else notice(null);
}

on('watch-words', (words) => { watchWords = words; middle(); });
on('camera-asking', (open) => { asking = open; middle(); });
on('camera-problem', (words) => { cameraWords = words; if (state.source !== 'none') warn(words); draw(); });
on('state:source', (source) => { if (source === 'camera') cameraWords = null; draw(); });
for (const key of ['connection', 'configured', 'configuring', 'picture', 'waiting', 'closing', 'locked']) on(`state:${key}`, draw);
on('failure', ({ message, code }) => warn(code === 'busy' ? `${message} The next picture is tried by itself.` : message));
on('progress', ({ id, what, name, done, total, text }) => {
  if (id) return;
  const title = modelInfo(name)?.title ?? name;
  const bytes = what === 'fetch' && total > 1e5;      // small totals are steps of loading, not bytes
  busy('fetch', { words: bytes ? `Fetching ${title}: ${megabytes(done)} of ${megabytes(total)} MB` : modelInfo(name) ? `Loading ${title}…` : `${text}…`,
    progress: bytes ? done / total : null });
  draw();
});
on('ready', () => { busy('fetch', null); draw(); });
on('failure', () => { busy('fetch', null); draw(); });
on('explaining', ({ running, words, progress, stop }) => busy('explain', running ? { words, progress, stop } : null));
on('explained', (e) => { if (e?.done && !e.live) $('#alert').hidden = true; });
on('speak', (words) => { $('#spoken').textContent = words; });
$('#stop').addEventListener('click', stopNewest);
$('#alert button').addEventListener('click', () => { $('#alert').hidden = true; });

setInterval(() => {
  const live = state.source === 'camera' && figures.fps && !state.waiting;
  $('#figures').textContent = state.watching ? (live ? `${figures.fps.toFixed(figures.fps < 10 ? 1 : 0)} fps` : '') : live
    ? `${figures.fps.toFixed(figures.fps < 10 ? 1 : 0)} fps · ${figures.roundTrip.toFixed(0)} ms, model ${figures.model.toFixed(0)} ms`
    : state.result?.ms && state.source === 'still' ? `model ${Object.values(pickStages(state.result.ms)).reduce((a, b) => a + b, 0).toFixed(0)} ms` : '';
}, 500);
const pickStages = ({ prepare = 0, encode = 0, predict = 0 }) => ({ prepare, encode, predict });
draw();
