/* The one explanation that is on the stage, and the still picture it belongs to.
   explainTarget(target, {freeze})  a class, box or word was chosen. Live and quick methods follow it on the moving
                                    picture; otherwise (or with freeze: true) the picture is frozen first
   refresh()                        explain again: method or parameters changed
   ask(request, onStep)             explain() about the current still, seq filled in, sent again if the server has
                                    forgotten the picture; for comparisons and cards. -> {done, stop()}
   keep(picture)                    makes a picture known to the server; resolves with its result
   asking comes on the bus before a question of one's own.
   News on the bus: still (a still's result is here), explaining ({running, words, progress, stop}) */
import { freeze } from './camera.js';
import { emit, on } from './bus.js';
import { configure, explain, keepFrame, tune } from './socket.js';
import { showHeat, showPicture } from './stage.js';
import { methodInfo, set, state } from './state.js';

let current = null;
let unfinished = false;             // the server went away while it was explaining

export const liveMethod = () => (state.live && methodInfo()?.live ? state.method : null);

export async function keep(picture) {
  const result = picture.given ?? await keepFrame(picture);      // given: the presenter of a room had it looked at
  Object.assign(picture, { seq: result.seq, result, model: result.model, task: result.task });
  return result;
}

export function ask(request, onStep) {
  const picture = request.picture ?? state.picture;
  const { picture: _, ...rest } = request;
  let job = null;
  let stopped = false;
  const run = async (again) => {
    if (!picture?.seq) await keep(picture);
    if (stopped) return { stopped: true };
    job = explain({ seq: picture.seq, aside: true, ...rest }, onStep);       // aside: not for those who watch this page
    try {
      return await job.done;
    } catch (failure) {
      if (!again || failure.code !== 'gone') throw failure;
      picture.seq = null;
      return run(false);
    }
  };
  const done = run(true);
  done.catch(() => {});
  return { done, stop: () => { stopped = true; job?.stop(); } };
}

export async function explainTarget(target, { freeze: freezeFirst = false } = {}) {
  emit('asking');
  set({ target });
  if (state.source === 'camera') {
    if (liveMethod() && !freezeFirst) tune({ target });
    else await freeze();
  } else await refresh();
}

export async function refresh() {
  current?.stop();
  current = null;
  if (state.following) return;      // the presenter's maps are shown
  if (state.source === 'camera') {
    tune({ method: liveMethod(), params: liveMethod() ? state.params : {}, target: state.target });
    if (!liveMethod()) showHeat(null);
    return;
  }
  const { picture } = state;
  if (!picture?.result || !state.method || state.configuring) return;
  const job = ask({ method: state.method, params: state.params, aside: false, ...(state.target ? { target: state.target } : {}) }, step);
  current = job;
  const words = methodInfo().title;
  set({ explaining: true });
  emit('explaining', { running: true, words, progress: null, stop: job.stop });

  function step(explanation) {
    if (current !== job || state.picture !== picture) return;
    showHeat(explanation);
    emit('explaining', { running: true, words, progress: explanation.progress, stop: job.stop });
  }
  try {
    const last = await job.done;
    if (current === job && last.shape) showHeat(last);
  } catch (failure) {
    if (current === job) {
      unfinished = failure.code === 'gone-server';
      showHeat(null);
      emit(unfinished ? 'failure' : 'unexplained', failure);
    }
  } finally {
    if (current === job) {
      set({ explaining: false });
      emit('explaining', { running: false });
    }
  }
}

export function stopExplaining() {
  const running = current;
  current = null;
  running?.stop();
  set({ explaining: false });
  emit('explaining', { running: false });
}

/* A still that is new, or that another model is to look at. */
export async function look() {
  const { picture } = state;
  if (!picture || state.configuring) return;
  stopExplaining();
  showHeat(null);
  showPicture(picture.bitmap, { mirrored: Boolean(picture.mirrored), title: picture.title });
  picture.result = null;
  try {
    const result = await keep(picture);
    if (state.picture !== picture) return;
    set({ result });
    emit('still', picture);
    await refresh();
  } catch (failure) {
    if (state.picture === picture && failure.code !== 'gone-server') emit('failure', failure);
  }
}

export function chooseModel(task, model) {
  stopExplaining();
  showHeat(null);
  set({ target: null, result: null });
  emit('clear');
  configure({ task, model, settings: {}, target: null, method: null, params: {} });
}

on('ready', () => {
  if (!unfinished || state.configuring) return;
  unfinished = false;
  refresh();
});
on('state:picture', (picture) => (picture ? look() : stopExplaining()));
on('state:source', (source) => { if (source === 'camera') { showHeat(null); refresh(); } });
