/* "Where does it look?": the presenter asks before the map is shown, everybody who watches taps one spot, then the
   map comes with all taps on it. The server counts; here they are drawn.
   ask(), reveal(), end()   the presenter's three steps */
import { freeze } from '../camera.js';
import { on } from '../bus.js';
import { say } from '../socket.js';
import { showHeat, stage } from '../stage.js';
import { set, state } from '../state.js';
import { warn } from '../status.js';
import { room } from './room.js';

const SIZE = 9;                     // radius of a tap, CSS pixels
let mine = null;                    // a viewer's own tap, [x, y] as shares of the picture
let overlay = true;                 // how the presenter had it before the poll
let asked = null;                   // the presenter's picture that is asked about

const open = () => room.poll !== null && !room.taps?.points;

export async function ask() {
  if (state.source === 'camera') await freeze();
  const { picture } = state;
  if (!picture) {
    warn('Show a picture first: the question is about the one on the stage.');
    return;
  }
  if (!picture.seq || !picture.result) await new Promise((known) => { const stop = on('still', () => { stop(); known(); }); });
  if (state.picture !== picture) return;
  asked = picture;
  overlay = state.overlay;
  set({ overlay: false });
  say('poll', { id: 'room:poll', seq: picture.seq });
}

export function reveal() {
  set({ overlay: true });
  say('reveal', { id: 'room:reveal' });
}

export function end() {
  if (!asked) return;
  asked = null;
  set({ overlay });
  say('poll', { seq: null });
}

on('state:picture', (picture) => { if (asked && picture !== asked) end(); });
on('room:poll', ({ seq }) => {
  mine = null;
  if (seq !== null && state.watching) showHeat(null);
});
on('room', () => {
  if (asked && room.role !== 'presenter') { asked = null; set({ overlay }); }
});
for (const news of ['room:poll', 'room:taps', 'room:ended']) on(news, stage.redraw);

function dot(ctx, x, y, own) {
  ctx.beginPath();
  ctx.arc(x, y, own ? SIZE + 3 : SIZE, 0, 2 * Math.PI);
  ctx.fillStyle = own ? '#ffd54a' : 'rgb(255 255 255 / 85%)';
  ctx.fill();
  ctx.lineWidth = 3;
  ctx.strokeStyle = '#000';
  ctx.stroke();
}

stage.addLayer({
  order: 60,
  draw(ctx, view) {
    if (room.poll === null) return;
    const at = ([x, y]) => [view.x(x * view.width), view.y(y * view.height)];
    for (const point of room.taps?.points ?? []) dot(ctx, ...at(point), false);
    if (mine) dot(ctx, ...at(mine), true);
  },
  pointer(kind, point) {
    if (!state.watching || !open()) return false;
    if (kind === 'click' && point.inside) {
      mine = [point.x / stage.view.width, point.y / stage.view.height].map((share) => Math.min(1, Math.max(0, share)));
      say('tap', { id: 'room:tap', x: mine[0], y: mine[1] });
      stage.redraw();
    }
    return kind === 'click';
  },
  cursor: () => (state.watching && open() ? 'crosshair' : ''),
});
