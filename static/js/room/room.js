/* The room that this page presents or watches, and nothing about how it looks.
   room              {role: null | 'presenter' | 'viewer', code, link, qr, viewers, here, hands, lent, poll, taps}
   open(), leave()   present a class; end it, or watch no longer
   watch(code)       from now on this page is a viewer of that room
   News on the bus: room (anything of it changed), room:EVENT (see socket.js). A page that is loaded again goes on
   with the room whose secret it has: in this tab, and nowhere else. */
import { emit, on } from '../bus.js';
import { look } from '../explaining.js';
import { connected, say } from '../socket.js';
import { set, state } from '../state.js';

const KEY = 'seewhy-room';
const EMPTY = { role: null, code: null, link: null, qr: null, viewers: 0, here: true, hands: [],
  lent: { on: false, offers: [] }, poll: null, taps: null };
export const room = { ...EMPTY, you: null };

/* What the taps of a poll say, in words. */
export const shares = ({ count, hits, share }) => (!count ? 'Nobody has tapped.' : share == null ? `${count} ${count === 1 ? 'tap' : 'taps'}. The map follows.`
  : `${hits} of ${count} in the hottest tenth; chance: 10 %`);

const changed = (patch) => { Object.assign(room, patch); emit('room', room); };

function kept() {
  try { return JSON.parse(sessionStorage.getItem(KEY)); } catch { return null; }
}

function keep(value) {
  try {
    if (value) sessionStorage.setItem(KEY, JSON.stringify(value));
    else sessionStorage.removeItem(KEY);
  } catch { /* where nothing may be kept a reload ends the room */ }
}

export function open() {
  say('present', { id: 'room:present' });
}

export function leave() {
  say('leave');
  keep(null);
  if (room.role === 'presenter') changed(EMPTY);
}

export function watch(code) {
  set({ watching: true, following: true });
  changed({ role: 'viewer', code });
  if (connected()) join();
}

const join = () => say('join', { code: room.code, id: 'room:join', ...(room.you ? { you: room.you } : {}) });

/* Once the server speaks: a viewer joins, a presenter's page that was loaded again, or whose line broke, goes on. */
on('connection', () => {
  if (room.role === 'viewer') join();
  else if (kept()) say('present', { id: 'room:present', ...kept() });
});

on('room:room', (news) => {
  const { secret, ...said } = news;
  if (secret) {
    keep({ code: said.code, secret });
    say('tab', { tab: state.tab });
    look();                         // a still that stands there already: whoever comes is to see it, too
  }
  changed({ ...said, role: secret ? 'presenter' : room.role });
});
on('room:joined', ({ ready, ...said }) => changed({ ...said, role: 'viewer' }));
on('room:hands', ({ list }) => changed({ hands: list }));
on('room:lent', (lent) => changed({ lent: { offers: [], ...lent } }));
on('room:poll', ({ seq }) => changed({ poll: seq, ...(seq === null ? { taps: null } : {}) }));
on('room:taps', (taps) => changed({ taps }));
on('room:ended', () => {
  keep(null);
  changed({ ...EMPTY, role: room.role === 'viewer' ? 'viewer' : null, code: room.code });
});
on('room:error', (error) => {
  if (error.id !== 'room:present') return;
  keep(null);
  changed(EMPTY);
  if (error.code !== 'gone') emit('failure', error);
});
on('state:tab', (tab) => { if (room.role === 'presenter') say('tab', { tab }); });
