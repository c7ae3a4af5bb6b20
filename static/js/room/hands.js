/* What viewers found: the presenter opens the list, looks at one, and shows it to everybody. */
import { on } from '../bus.js';
import { openPicture } from '../camera.js';
import { el } from '../dom.js';
import { createPane } from '../pane.js';
import { say } from '../socket.js';
import { methodInfo, set, state } from '../state.js';
import { warn } from '../status.js';
import { chooseMethod } from '../why.js';
import { room } from './room.js';

let looked = null;                  // the hand that is looked at
let pane = null;
let map = null;                     // the last one that came for a hand; it may come before its picture is decoded
const canvas = el('canvas', { class: 'hand-picture', role: 'img', 'aria-label': 'What was found' });
const list = el('ul', { class: 'hand-list' });
const dialog = el('dialog', { id: 'hands-dialog', 'aria-labelledby': 'hands-title' },
  el('h2', { id: 'hands-title' }, 'What was found'), list, canvas,
  el('form', { method: 'dialog' }, el('button', { class: 'primary' }, 'Close')));
document.body.append(dialog);

const words = (hand) => hand.note || hand.target || 'What the model is surest of';

function draw() {
  const open = looked !== null && room.hands.some(({ hand }) => hand === looked);
  canvas.hidden = !open;
  list.replaceChildren(...room.hands.map((hand) => el('li', { class: hand.hand === looked ? 'looked' : '' },
    el('span', { class: 'hand-words' }, el('strong', {}, words(hand)), el('span', { class: 'soft' }, ` ${methodInfo(hand.method)?.title ?? hand.method}`)),
    el('button', { type: 'button', onclick: () => look(hand.hand) }, 'Look'),
    el('button', { type: 'button', class: 'primary', onclick: () => show(hand.hand) }, 'Show to all'))));
  if (!room.hands.length) list.replaceChildren(el('li', {}, 'No hand is up at the moment.'));
}

export function openHands() {
  looked = null;
  draw();
  dialog.showModal();
}

function look(hand) {
  looked = hand;
  draw();
  say('show', { id: 'room:show', hand, peek: true });
}

function show(hand) {
  dialog.close();
  say('show', { id: 'room:show', hand });
}

/* Looked at: here in the list alone. Shown: on the presenter's own stage, from where everybody follows. */
on('room:shown', async (found) => {
  if (room.role !== 'presenter') return;
  const bitmap = await createImageBitmap(new Blob([found.jpeg], { type: 'image/jpeg' }));
  if (found.peek) {
    pane ??= createPane(canvas);
    pane.show(bitmap);
    pane.heat(map?.hand === found.hand ? map : null);
    canvas.setAttribute('aria-label', words(found));
    return;
  }
  if (found.task !== state.task) {
    warn(`That was found with ${found.task}: open that tab, and ask who found it to raise the hand again.`);
    return;
  }
  await openPicture({ jpeg: found.jpeg, bitmap, size: [bitmap.width, bitmap.height], title: `Found in class: ${words(found)}`, frozen: true });
  set({ target: found.target });
  if (found.method !== state.method) chooseMethod(found.method);
});
on('given', ({ explanation: e }) => {
  if (!e?.hand || state.watching) return;
  map = e;
  if (e.hand === looked && pane) pane.heat(e);
});
on('room', () => { if (dialog.open) draw(); });
