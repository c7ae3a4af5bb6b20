/* "Present to a class": the button in the header, the bar below it, and the link with its words and its drawing. */
import { emit, on } from '../bus.js';
import { borrow } from '../camera.js';
import { $, el } from '../dom.js';
import { say } from '../socket.js';
import { state } from '../state.js';
import { openHands } from './hands.js';
import { ask, end, reveal } from './poll.js';
import { leave, open, room, shares } from './room.js';
import './given.js';

const button = $('#to-class');
const parts = {};
let wanted = false;                 // the button was pressed: the link is shown as soon as there is one

const LOCAL = ['localhost', '127.0.0.1', '[::1]'];
const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

function bar() {
  const quiet = (id, text, onclick) => el('button', { type: 'button', id, onclick }, text);
  parts.code = el('strong', { id: 'room-code' });
  parts.watching = el('span', { id: 'room-viewers', class: 'numbers', role: 'status' });
  parts.words = el('span', { id: 'room-words', role: 'status' });
  parts.link = quiet('room-link', 'Link', () => parts.dialog.showModal());
  parts.poll = quiet('room-poll', 'Ask where it looks', () => (room.poll === null ? ask() : room.taps?.points ? end() : reveal()));
  parts.hands = quiet('room-hands', 'Hands', openHands);
  parts.camera = quiet('room-camera', 'Phone camera', () => say('borrow', { id: 'room:borrow', on: !room.lent.on }));
  parts.close = quiet('room-close', 'End', () => { end(); leave(); });
  parts.bar = el('section', { id: 'room-bar', 'aria-label': 'The class' }, parts.code, parts.watching, parts.words,
    parts.camera, parts.hands, parts.poll, parts.link, parts.close);
  $('#top').after(parts.bar);
}

function dialog() {
  parts.qr = el('img', { id: 'room-qr', alt: 'QR code of the link' });
  parts.large = el('p', { id: 'room-large' });
  parts.address = el('p', { id: 'room-address' });
  parts.near = el('p', { class: 'soft', hidden: true }, 'Only this machine can open that link. To let a class in, start Seewhy with --lan (see README).');
  parts.dialog = el('dialog', { id: 'room-dialog', 'aria-labelledby': 'room-title' }, el('h2', { id: 'room-title' }, 'Watch with your own phone'),
    el('div', { class: 'room-ways' }, parts.qr, el('div', {}, el('p', {}, 'Point the camera at the code, or open'), parts.address,
      el('p', {}, 'The room is called'), parts.large, parts.near)),
    el('form', { method: 'dialog' }, el('button', { class: 'primary' }, 'Close')));
  document.body.append(parts.dialog);
}

function draw() {
  if (state.watching) return;
  const here = room.role === 'presenter';
  document.body.classList.toggle('in-room', here);
  button.setAttribute('aria-pressed', String(here));
  if (!here) {
    parts.dialog?.close();
    return;
  }
  const text = (node, words) => { if (node.textContent !== words) node.textContent = words; };
  text(parts.code, room.code.replaceAll('-', ' '));
  text(parts.watching, `${count(room.viewers, 'viewer', 'viewers')}`);
  const { poll, taps, hands, lent } = room;
  const shown = poll !== null && Boolean(taps?.points);
  text(parts.words, poll === null ? '' : shown ? shares(taps) : `${taps?.count ?? 0} of ${room.viewers} tapped`);
  text(parts.poll, poll === null ? 'Ask where it looks' : shown ? 'Done' : 'Show the map');
  parts.poll.classList.toggle('primary', poll !== null && !shown);
  text(parts.hands, hands.length ? `${hands.length} found something` : 'No hands up');
  parts.hands.disabled = !hands.length;
  parts.hands.classList.toggle('primary', hands.length > 0);
  parts.camera.hidden = !lent.on && !lent.offers.length;
  text(parts.camera, lent.on ? 'Give the phone back' : 'Use the phone’s camera');
  if (room.qr && parts.drawn !== room.qr) {
    parts.drawn = room.qr;
    parts.qr.src = `data:image/svg+xml,${encodeURIComponent(room.qr)}`;
    text(parts.large, room.code.replaceAll('-', ' '));
    text(parts.address, room.link.replace(/^https?:\/\//, ''));
    parts.near.hidden = !LOCAL.includes(new URL(room.link).hostname);
  }
  if (wanted) {
    wanted = false;
    parts.dialog.showModal();
  }
}

if (!document.body.classList.contains('watching')) {
  bar();
  dialog();
  button.addEventListener('click', () => {
    if (room.role === 'presenter') parts.dialog.showModal();
    else {
      wanted = true;
      open();
    }
  });
  on('room', draw);
  on('room:lent', ({ on: now }) => { if (room.role === 'presenter') borrow(now); });
  on('borrowed', (goesOn) => { if (room.lent.on) say('borrow', { on: goesOn }); });
  on('room:error', ({ id, message }) => { if (id !== 'room:present') emit('failure', { message }); });
  on('room:ended', ({ message }) => emit('failure', { message }));
}
