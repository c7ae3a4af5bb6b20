/* The moving picture. A frame is drawn together with the map that belongs to it: when a live method is on, a
   result waits for its explanation, for as long as explanations lately took. Also counts frames and latency.
   onMap(change)   a task's say in which map is drawn: change(result, explanation) -> explanation */
import { on } from './bus.js';
import { cameraVideo, hasVideo, nowShown, whenMoved } from './camera.js';
import { liveMethod } from './explaining.js';
import { showHeat, showPicture, stage } from './stage.js';
import { set, state } from './state.js';

let waiting = null;
let timer = null;
let lag = 150;                      // how long a map lately came after its result, ms
const shown = [];                   // when frames came, for the rate
export const figures = { fps: 0, roundTrip: 0, model: 0, taken: 0 };      // taken: when what is on the stage was
const IDLE = 200;                   // how soon it is seen that the camera itself is to be on the stage again, ms
let filming = 0;                    // which of the loops below is the one that runs

const changes = [];
export const onMap = (change) => changes.push(change);

const moving = (result) => state.source === 'camera' && !result.kept && result.task === state.task;

function present(result, explanation) {
  clearTimeout(timer);
  const old = waiting === result ? null : waiting;
  waiting = null;
  old?.picture?.bitmap.close?.();
  figures.taken = result.picture.taken;
  if (!smooth()) showPicture(result.picture.bitmap, { mirrored: state.mirror });
  nowShown(result.picture);
  showHeat(explanation && changes.reduce((map, change) => change(result, map), explanation));
}

function count(result) {
  const now = performance.now();
  if (now - (shown.at(-1) ?? now) > 1500) shown.length = 0;      // a pause is no frame rate
  shown.push(now);
  while (shown.length > 2 && now - shown[0] > 3000) shown.shift();
  figures.fps = shown.length > 1 ? ((shown.length - 1) * 1000) / (now - shown[0]) : 0;
  const smooth = (old, value) => (old ? old + 0.15 * (value - old) : value);
  figures.roundTrip = smooth(figures.roundTrip, result.roundTrip);
  const { prepare = 0, encode = 0, predict = 0 } = result.ms ?? {};
  figures.model = smooth(figures.model, prepare + encode + predict);
}

/* Before the first answer, and while captions come once in a while with no map on the picture, the camera itself
   is on the stage and moves as fast as it can: drawn when it has a new picture, not at every repaint. */
const smooth = () => state.source === 'camera' && hasVideo() && (!state.result || (state.task === 'caption' && !liveMethod()));

function film(mine) {
  if (state.source !== 'camera' || mine !== filming) return;
  if (smooth() && cameraVideo.readyState >= 2) stage.show(cameraVideo, { mirrored: state.mirror, size: state.result?.size });
  if (smooth()) whenMoved(() => film(mine));
  else setTimeout(film, IDLE, mine);
}

on('result', (result) => {
  if (!moving(result) || !result.picture) return;
  set({ result });
  count(result);
  if ((!liveMethod() && !result.picture.given) || result.follows === false) {      // nothing will come to wait for: no box, say
    present(result, null);
    return;
  }
  if (waiting) {                    // its map never came; the newer frame takes its place
    clearTimeout(timer);
    waiting.picture.bitmap.close?.();
  }
  waiting = { ...result, since: performance.now() };
  const mine = waiting;
  timer = setTimeout(() => { if (waiting === mine) present(mine, null); }, Math.min(1500, 2 * lag + 100));
});

on('explanation', (explanation) => {
  if (waiting?.seq !== explanation.seq || state.source !== 'camera') return;
  const took = performance.now() - waiting.since;
  lag += 0.2 * (took - lag);
  present(waiting, explanation);
});

on('clear', () => {
  shown.length = 0;
  Object.assign(figures, { fps: 0, roundTrip: 0, model: 0 });
});

on('state:source', (source) => {
  clearTimeout(timer);
  waiting = null;
  if (source !== 'camera') {
    shown.length = 0;
    Object.assign(figures, { fps: 0 });
    nowShown(null);
  } else {
    set({ result: null });
    film(filming += 1);
  }
});
