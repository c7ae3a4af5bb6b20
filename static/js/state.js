/* The one state object of the page. Read it anywhere; change it only with set({key: value}), which emits
   `state:KEY` for each key that changed and then `state` with the patch. Preferences survive a reload. */
import { emit } from './bus.js';

const KEPT = ['opacity', 'palette', 'diverging', 'mirror', 'theme'];

export const state = {
  connection: 'connecting',   // connecting, open, gone
  closing: false,             // it is gone, and had said that it would
  locked: false,              // it is there, and wants its link to be opened again
  ready: null,                // the server's last `ready`
  configured: null,           // {task, model, settings, method, params, target} as the server confirmed it
  configuring: false,         // a configure is on its way
  waiting: false,             // pictures are under way, and the server has said nothing for long
  tab: 'classify',            // classify, detect, caption, whatif
  task: 'classify',           // the server's task; on the whatif tab it is the task that was open before
  source: 'none',             // none, camera, still
  picture: null,              // a still: {bitmap, jpeg, size, seq, title, result}; null while live
  result: null,               // the newest result of the current task
  explanation: null,          // what is drawn on the stage
  explaining: false,          // a better one for the still is on its way
  method: null,               // chosen method's name
  params: {},                 // its parameters
  live: true,                 // map every live frame with the chosen method, if it is quick enough
  target: null,               // target text; null is what the model is surest of
  watching: false,            // this page watches a room (static/js/room/)
  following: false,           // and shows what its presenter shows, rather than a question of its own
  overlay: true,
  opacity: 0.75,
  palette: 'inferno',         // unsigned maps
  diverging: 'blue-red',      // signed maps
  mirror: false,
  theme: 'auto',
};

try {
  Object.assign(state, JSON.parse(localStorage.getItem('seewhy') ?? '{}'));
} catch { /* a browser that keeps nothing starts from the defaults */ }

export function set(patch) {
  const changed = Object.keys(patch).filter((key) => state[key] !== patch[key]);
  Object.assign(state, patch);
  if (changed.some((key) => KEPT.includes(key))) remember();
  for (const key of changed) emit(`state:${key}`, state[key]);
  if (changed.length) emit('state', patch);
}

function remember() {
  try {
    localStorage.setItem('seewhy', JSON.stringify(Object.fromEntries(KEPT.map((key) => [key, state[key]]))));
  } catch { /* private windows may refuse; nothing is lost but the preference */ }
}

export const modelInfo = (name = state.configured?.model) =>
  state.ready?.catalog.find((model) => model.name === name);
export const methodInfo = (name = state.method) => state.ready?.methods.find((method) => method.name === name);
export const labels = () => state.ready?.labels[state.configured?.model] ?? {};
