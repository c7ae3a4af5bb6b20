/* The protocol (serving/PROTOCOL.md), and nothing about how things look.
   connect()                         once, by main.js
   configure(patch)                  what to do with frames from now on; remembered across reconnections
   untilNext()                       how many ms until a live picture may be taken; Infinity: an answer comes first
   sendFrame({jpeg, bitmap, size})   a live frame, only when hasCredit(); answers come on the bus as `result`
   keepFrame({jpeg, ...})            a still: waits for its credit, resolves with its result (rejects: Failure)
   explain(request, onStep)          -> {id, done, stop()}; onStep(explanation) for each better one; done resolves
                                     with the last one (stopped: true if it was stopped) or rejects with a Failure
   edit(request)                     resolves with the edited picture's result
   say(event, fields)                an event of a room; what a room says comes on the bus as `room:EVENT`, what is
                                     seen in pictures that this page did not send as `given` ({result} or {explanation})
   Two frames at most are in flight; a credit comes back with result, error or dropped. While the server is silent
   state.waiting says so and there is one credit less; after 5 s of silence nothing is believed in flight any more. */
import { emit } from './bus.js';
import { createPace } from './pace.js';
import { set, state } from './state.js';

export class Failure extends Error {
  constructor({ code, message, valid }) {
    super(message);
    Object.assign(this, { code, valid });
  }
}

const MOST = 2;                     // one in the model, the newest one waiting
const ROOM = ['room', 'joined', 'picture', 'tab', 'ended', 'hands', 'shown', 'poll', 'taps', 'lent'];
const LENT = 2 ** 40;               // pictures of a borrowed camera are numbered by the server, from here on
const SILENCE = 5000;
const LONG = 1500;                  // a server that says nothing for so long, or three times what is usual, is waited for
const FULL = 5;                     // how soon it is seen again whether the line has carried what was sent
const GONE = { code: 'gone-server', message: 'The server went away before it answered; this is asked again by itself.' };
let socket = null;
let serial = 0;
let silence = null;                 // the timer that runs while anything is in flight
const flights = new Set();          // seqs that are not answered yet
let desired = {};                   // everything configure() was told, for a server that comes back
let refused = false;                // the last configure failed; do not wait for its model
const sent = new Map();             // seq -> the picture sent, until answered
const kept = new Map();             // seq -> {resolve, reject}
const running = new Map();          // id -> {resolve, reject, onStep, last}
export const pace = createPace();

export async function connect() {
  let io;
  try {
    ({ io } = await import('/vendor/socket.io.esm.min.js'));
  } catch {
    set({ connection: 'missing' });
    return;
  }
  socket = io({ transports: ['websocket'], reconnectionDelay: 400, reconnectionDelayMax: 2000, timeout: 4000 });
  socket.on('connect', () => emit('connection', 'open'));
  socket.on('disconnect', lost);
  socket.on('connect_error', refusedOrGone);
  socket.on('server_closing', () => set({ connection: 'gone', closing: true }));
  socket.on('ready', onReady);
  socket.on('result', (result) => (result.lent ? emit('room:credit', result) : given(result) ? emit('given', { result }) : onResult(result)));
  socket.on('explanation', (raw) => (given(raw) ? emit('given', { explanation: unpacked(raw) }) : onExplanation(raw)));
  for (const event of ROOM) socket.on(event, (news) => emit(`room:${event}`, news));
  socket.on('progress', (news) => { listen(); emit('progress', news); });
  socket.on('dropped', (news) => (news.lent ? emit('room:credit', news) : settle(news.seq, news)));
  socket.on('error', onError);
}

const given = (m) => !m.id && (state.watching || m.seq >= LENT || Boolean(m.hand));
export const say = (event, fields = {}) => { if (connected()) socket.emit(event, fields); };

/* A WebSocket does not say why it was refused; a page that is asked for does. */
async function refusedOrGone() {
  set({ connection: state.ready ? 'gone' : 'connecting' });
  const status = await fetch('/health').then((reply) => reply.status, () => 0);
  if (state.connection !== 'open') set({ locked: status === 401, closing: state.closing && status === 0 });
}

export const connected = () => Boolean(socket?.connected);
/* None beside a still that waits: a newer picture would take its place. */
export const hasCredit = () => connected() && !state.configuring && Boolean(state.ready)
  && flights.size < (state.waiting ? 1 : MOST) && ![...flights].some((seq) => kept.has(seq));
export const sentPicture = (seq) => sent.get(seq);

/* Nothing is put behind a picture that the line has not carried yet: what is sent to keep the connection alive
   would wait there too. What Socket.IO calls it is an inside; a version that calls it otherwise only loses this. */
const backlog = () => socket?.io?.engine?.transport?.ws?.bufferedAmount ?? 0;

export function untilNext() {
  if (!hasCredit()) return Infinity;
  if (!flights.size) return 0;
  return Math.max(pace.due() - performance.now(), backlog() ? FULL : 0, 0);
}

export function configure(patch) {
  if (state.watching) return;
  desired = { ...desired, ...patch };
  if (!connected()) return;
  set({ configuring: true });
  refused = false;
  pace.reset();
  socket.emit('configure', patch);
}

/* A change that only concerns coming frames (target, live method): no waiting state on the page. */
export function tune(patch) {
  if (state.watching) return;
  desired = { ...desired, ...patch };
  if (connected()) socket.emit('configure', patch);
}

export function sendFrame(picture, keep = false) {
  const seq = ++serial;
  const at = performance.now();
  sent.set(seq, { ...picture, seq, at });
  pace.sent(at, flights.size === 0);
  flights.add(seq);
  socket.emit('frame', { seq, jpeg: picture.jpeg, ...(keep ? { keep: true } : {}) });
  if (silence === null) listen();
  return seq;
}

export async function keepFrame(picture) {
  await credit();
  return new Promise((resolve, reject) => {
    const seq = sendFrame(picture, true);
    kept.set(seq, { resolve, reject });
  });
}

export function explain(request, onStep = () => {}) {
  const id = `e${++serial}`;
  const entry = { onStep, last: null };
  const done = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
  done.catch(() => {});             // whoever waits sees it; nobody waiting is no console error
  running.set(id, entry);
  if (connected()) socket.emit('explain', { id, ...request });
  else fail(id, GONE);
  return { id, done, stop: () => stop(id) };
}

export function edit(request) {
  const id = `w${++serial}`;
  return new Promise((resolve, reject) => {
    running.set(id, { resolve, reject, onStep: () => {} });
    if (connected()) socket.emit('edit', { id, ...request });
    else fail(id, GONE);
  });
}

export function stop(id) {
  const entry = running.get(id);
  if (!entry) return;
  running.delete(id);
  socket?.emit('stop', { id });
  entry.resolve(entry.last ? { ...entry.last, stopped: true } : { stopped: true });
}

function credit() {
  return new Promise((resolve) => {
    const look = () => (hasCredit() ? resolve() : setTimeout(look, 20));
    look();
  });
}

function onReady(ready) {
  if (state.watching) {             // what the presenter has chosen: room/watch.js says when that is taken over
    set({ connection: 'open' });
    emit('room:ready', ready);
    return;
  }
  const again = state.connection !== 'open' && Object.keys(desired).length > 0;
  set({ closing: false, locked: false });
  if (again) {                      // a server that came back has forgotten what we wanted
    set({ ready, connection: 'open' });
    configure(desired);
    return;
  }
  const coming = !(ready.configured.model in ready.labels) && !refused;
  set({ ready, connection: 'open', configuring: coming, configured: ready.configured });
  emit('ready', ready);
}

function onResult(result) {
  const picture = sent.get(result.seq);
  if (result.id && running.has(result.id)) {
    finish(result.id, result);
    return;
  }
  const now = performance.now();
  settle(result.seq);
  kept.get(result.seq)?.resolve({ ...result, fingerprint: result.picture, picture });
  const wasKept = kept.delete(result.seq);
  if (picture && !wasKept) pace.answered(picture, result, now, flights.size > 0);
  emit('credit');                   // before anything is drawn: the next picture is encoded meanwhile
  emit('result', { ...result, picture, kept: wasKept, roundTrip: now - (picture?.at ?? now) });
}

function onExplanation(raw) {
  heard();
  if (raw.live) pace.explained(raw.ms ?? 0);
  const explanation = unpacked(raw);
  const entry = running.get(raw.id);
  if (!entry) {
    if (raw.live) emit('explanation', explanation);
    return;
  }
  entry.last = explanation;
  entry.onStep(explanation);
  if (raw.done) finish(raw.id, explanation);
}

function onError(error) {
  if (error.id && running.has(error.id)) {
    fail(error.id, error);
    return;
  }
  if (error.lent || (error.id ?? '').toString().startsWith('room:')) {
    emit(error.lent ? 'room:credit' : 'room:error', error);
    return;
  }
  if (error.seq != null && sent.has(error.seq)) {
    const waiting = kept.get(error.seq);
    kept.delete(error.seq);
    settle(error.seq);
    waiting?.reject(new Failure(error));
    if (waiting) return;
  } else if (state.configuring) {
    desired = { ...desired, ...pick(state.configured) };
    refused = true;
    set({ configuring: false });
  }
  emit('failure', error);
  emit('credit');
}

const pick = (configured) => (configured ? { task: configured.task, model: configured.model, settings: configured.settings } : {});

function settle(seq, dropped) {
  flights.delete(seq);
  heard();
  for (const old of sent.keys()) if (old < seq - 8) sent.delete(old);
  if (!dropped) return;
  const waiting = kept.get(seq);
  if (waiting) {                    // a still that was passed over is sent again, not forgotten
    kept.delete(seq);
    keepFrame(sent.get(seq)).then(waiting.resolve, waiting.reject);
  } else {
    if (dropped.code === 'newer') pace.passed(performance.now());
    sent.get(seq)?.bitmap?.close?.();
    sent.delete(seq);
  }
  emit('credit');
}

function heard() {
  set({ waiting: false });
  listen();
}

/* As long as anything is in flight, the server's silence is watched: first it is said, then a picture is tried. */
function listen() {
  clearTimeout(silence);
  const patience = Math.min(SILENCE - 500, Math.max(LONG, 3 * pace.usual()));
  silence = !flights.size ? null : setTimeout(() => {
    set({ waiting: true });
    silence = setTimeout(takeBack, SILENCE - patience);
  }, patience);
}

function takeBack() {
  silence = null;
  if (backlog()) {                  // not even sent yet: a picture more would only wait behind it
    silence = setTimeout(takeBack, SILENCE);
    return;
  }
  flights.clear();
  emit('credit');
}

function lost(reason) {
  if (reason === 'io server disconnect') setTimeout(() => socket.connect(), 2000);    // it sent us away: ask again
  clearTimeout(silence);
  silence = null;
  flights.clear();
  pace.reset();
  set({ connection: 'gone', configuring: false, waiting: false });
  for (const { reject } of kept.values()) reject(new Failure(GONE));
  kept.clear();
  for (const id of [...running.keys()]) fail(id, GONE);
}

function finish(id, value) {
  const entry = running.get(id);
  running.delete(id);
  entry?.resolve(value);
}

function fail(id, error) {
  const entry = running.get(id);
  running.delete(id);
  entry?.reject(new Failure(error));
}

/* Binary fields arrive as ArrayBuffers; everyone else works with bytes. */
function unpacked(raw) {
  const bytes = (value) => (value instanceof ArrayBuffer ? new Uint8Array(value) : value);
  const packed = bytes(raw.map_bytes);            // the maps' bytes, one map after the other
  let at = 0;
  const next = ([height, width]) => packed.subarray(at, (at += height * width));
  const each = (object, change) => Object.fromEntries(Object.entries(object ?? {}).map(([k, v]) => [k, change(v)]));
  return {
    ...raw,
    heat: bytes(raw.heat),
    maps: each(raw.maps, (map) => ({ ...raw, ...map, heat: next(map.shape), maps: {} })),
    images: each(raw.images, bytes),
  };
}
