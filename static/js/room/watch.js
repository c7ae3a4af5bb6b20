/* A page that was opened by a room's link: it shows what the presenter shows, and asks questions of its own. */
import { emit, on } from '../bus.js';
import { $, el } from '../dom.js';
import { say } from '../socket.js';
import { set, state } from '../state.js';
import { follow, hold } from './given.js';
import { createLending } from './lend.js';
import { room, shares, watch } from './room.js';

const CODE = location.pathname.match(/^\/join\/([^/]+)/)?.[1];
const TABS = { detect: 'Detect', classify: 'Classify', caption: 'Caption', whatif: 'What if' };
let ready = null;                   // what the presenter has chosen, while this page does not follow
let tab = null;
let raised = false;
let failed = null;                  // why this page is in no room
const parts = {};

function mount() {
  parts.words = el('p', { id: 'watch-words', role: 'status' });
  parts.back = el('button', { type: 'button', id: 'watch-back', class: 'primary', onclick: back }, 'Follow again');
  parts.hand = el('button', { type: 'button', id: 'watch-hand', 'aria-pressed': 'false', onclick: hand }, 'Show what I found');
  parts.lend = createLending();
  $('#stage').after(el('div', { id: 'watch-bar' }, parts.words, el('div', { class: 'watch-buttons' }, parts.back, parts.hand, parts.lend)));
  $('#name').after(el('p', { id: 'watch-tab' }));
}

/* One's own question --------------------------------------------------------------------------------------------- */
function own() {
  if (!state.following || !room.code) return;
  if (room.poll !== null && !room.taps?.points) return;          // first one says where it looks
  hold();
  draw();
}

function back() {
  lower();
  if (ready) take(ready);
  ready = null;
  follow();
  draw();
}

function hand() {
  if (raised) lower();
  else {
    const { picture, explanation: e } = state;
    const { task, model } = picture.result;
    say('hand', { id: 'room:hand', seq: picture.seq, task, model, method: e.method, params: state.params, target: state.target ?? '', note: e.title.slice(0, 140) });
    raised = true;
  }
  draw();
}

function lower() {
  if (raised) say('hand', {});
  raised = false;
}

/* What the presenter has chosen ------------------------------------------------------------------------------------ */
function take(news) {
  set({ ready: news, configured: news.configured, configuring: !(news.configured.model in news.labels) });
  emit('ready', news);
}

function words() {
  if (failed) return failed;
  if (state.connection !== 'open') return 'The connection is gone. This page comes back by itself.';
  if (!room.here) return 'The presenter is away for a moment.';
  if (room.poll !== null && !room.taps?.points) return 'Where does it look? Tap one spot on the picture.';
  if (room.taps?.points) return shares(room.taps);
  if (!state.following) return 'Your own question. The presenter goes on meanwhile.';
  return state.picture || state.result ? 'You see what the presenter shows. Ask why whenever you like.' : 'Waiting for the presenter’s first picture.';
}

function draw() {
  if (!CODE) return;
  const text = words();
  if (parts.words.textContent !== text) parts.words.textContent = text;
  $('#watch-tab').textContent = failed ? '' : TABS[tab] ?? '';
  parts.back.disabled = state.following;
  parts.hand.disabled = state.following || !state.explanation?.done || !state.picture?.result;
  parts.hand.setAttribute('aria-pressed', String(raised));
  parts.hand.textContent = raised ? 'Take my hand down' : 'Show what I found';
  emit('watch-words', failed ?? 'Waiting for the presenter’s first picture.');
}

if (CODE) {
  mount();
  on('asking', own);
  on('room:joined', (joined) => { failed = null; take(joined.ready); if (!state.following) back(); });
  on('room:ready', (news) => { if (!room.you) return; if (state.following) take(news); else ready = news; });
  on('room:tab', (news) => { tab = news.tab; draw(); });
  on('room:poll', ({ seq }) => { if (seq !== null && !state.following) back(); });
  on('room:ended', ({ message }) => { failed = `${message.charAt(0).toUpperCase()}${message.slice(1)}.`; draw(); });
  on('room:error', (error) => {
    if (error.id === 'room:join') failed = `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`;
    else emit('failure', error);
    draw();
  });
  on('state:explanation', () => { if (raised && !state.explanation) lower(); draw(); });
  for (const news of ['room', 'state:picture', 'state:connection', 'state:following', 'state:result', 'explaining']) on(news, draw);
  watch(decodeURIComponent(CODE));
  draw();
}
