/* Pictures that this page did not take: the presenter's, for who watches; a borrowed phone's, for who presents.
   Of what comes only the newest is decoded and shown, so that a slow page is late by one picture and no more.
   hold()     a question of one's own: the picture on the stage stands still, what comes meanwhile is remembered
   follow()   back to what is shown now */
import { emit, on } from '../bus.js';
import { takeShown } from '../camera.js';
import { hideTiles, showHeat, showTiles } from '../stage.js';
import { set, state } from '../state.js';

let newest = null;                  // {picture, result, explanation, edit, edited}: all that belongs to one picture
let waiting = null;                 // the same, not decoded yet
let current = null;                 // the same, on the stage
let working = false;

const jpeg = (bytes) => createImageBitmap(new Blob([bytes], { type: 'image/jpeg' }));
/* A presenter that shows a still does not want the borrowed camera's pictures. */
const follows = () => (state.watching ? state.following : state.source === 'camera');

on('room:picture', (picture) => { newest = { picture }; });

on('given', ({ result, explanation }) => {
  const seq = result?.seq ?? explanation.seq;
  if (newest?.picture.seq !== seq) return;
  if (result && 'edited' in result) newest.edit = result.edited ? result : null;
  else if (result) newest.result = result;
  else newest[explanation.edited ? 'edited' : 'explanation'] = explanation;
  if (newest === current && follows()) more(result, explanation);
  else if (newest !== current && newest.result) put(newest);
});

function put(bundle) {
  if (!follows()) return;
  waiting = bundle;
  work();
}

async function work() {
  if (working) return;
  working = true;
  while (waiting) {
    const now = waiting;
    waiting = null;
    try {
      const bitmap = await jpeg(now.picture.jpeg);
      if (waiting || !follows()) bitmap.close();
      else show(now, bitmap);
    } catch { /* a picture that this browser cannot read: the next one comes */ }
  }
  working = false;
}

function show(now, bitmap) {
  current = now;
  const { picture: { jpeg: bytes, seq, kept }, result } = now;
  const picture = { bitmap, jpeg: bytes, size: [bitmap.width, bitmap.height], seq, taken: performance.now(), given: result };
  if (kept) {
    still({ ...picture, title: 'The presenter’s picture' }, now.explanation?.target ?? null);
    if (now.explanation) showHeat(now.explanation);
    if (now.edit) edited(now);
    return;
  }
  if (state.source !== 'camera') set({ picture: null, source: 'camera' });
  emit('result', { ...result, picture, kept: false, roundTrip: 0 });
  if (now.explanation) more(null, now.explanation);
}

function still(picture, target) {
  set({ source: 'still', picture, target });
  emit('result', { ...picture.given, picture, kept: true });
}

/* What comes for the picture that is on the stage. */
function more(result, explanation) {
  if (result && 'edited' in result) {
    if (result.edited) edited(current);
    else hideTiles();
  } else if (explanation?.edited) edited(current);
  else if (explanation) {
    if (state.watching) set({ target: explanation.target, ...(explanation.method && !explanation.hand ? { method: explanation.method } : {}) });
    if (explanation.live) emit('explanation', explanation);
    else showHeat(explanation);
    if (current.edit) edited(current);
  }
}

/* What the presenter erased: both sides, on one scale. */
async function edited(now) {
  const bitmap = await jpeg(now.edit.image);
  if (now !== current || !now.edit || !state.picture) return;
  const changes = (now.edit.compared ?? []).slice(0, 1).map(({ label, before, after }) =>
    `${label}: ${Math.round(100 * before)} % before, ${Math.round(100 * after)} % after`);
  showTiles([{ title: 'Original', bitmap: state.picture.bitmap, explanation: now.explanation },
    { title: 'Modified', text: changes.join(''), bitmap, explanation: now.edited }], { title: 'The presenter erased a part' });
}

export function hold() {
  set({ following: false });
  const { source } = state;
  const taken = source === 'camera' ? takeShown() : null;
  if (taken) still({ ...taken, title: 'Your picture' }, null);
  return Boolean(taken) || source === 'still';
}

export function follow() {
  set({ following: true });
  current = null;
  if (newest?.result) put(newest);
}

on('connection', () => { newest = current = waiting = null; });
