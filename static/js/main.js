/* Wires the page together. Plug-ins (boxes, caption, what if, tour) add one import line at the end of the list. */
import { emit, on } from './bus.js';
import { cameraOn, freeze, openFile, startCamera, stopCamera, unfreeze } from './camera.js';
import { $, el, words } from './dom.js';
import { chooseModel, explainTarget, look, refresh } from './explaining.js';
import { DIVERGING, SEQUENTIAL } from './heat.js';
import { onKey } from './keys.js';
import { buildParams } from './params.js';
import { configure, connect } from './socket.js';
import { methodInfo, modelInfo, set, state } from './state.js';
import { nextMethod, walk } from './why.js';
import './live.js';
import './status.js';
import './strip.js';
import './classes.js';
import './compare.js';
import './checks.js';
import './measure.js';
// plug-ins, each its founder's own file:
import './boxes.js';
import './trust.js';
import './caption.js';
import './whatif.js';
import './room/class.js';
import './room/watch.js';

const TABS = ['detect', 'classify', 'caption', 'whatif'];

/* Tasks and models ------------------------------------------------------------------------------------------- */
export function openTab(tab) {
  if (tab === state.tab || $(`#tab-${tab}`).disabled || state.watching) return;
  emit('leave');
  set({ tab });
  if (tab !== 'whatif' && tab !== state.task) {
    set({ task: tab });
    if (state.ready) models(state.ready, firstModel(tab));
    chooseModel(tab, firstModel(tab));
  }
}

function firstModel(task) {
  const models = state.ready?.catalog.filter((m) => m.task === task) ?? [];
  return (models.find((m) => m.name === remembered.get(task)) ?? models.find((m) => m.embedded) ?? models[0])?.name;
}
const remembered = new Map();       // task -> model chosen last

function models(ready, chosen = ready.configured?.model) {
  const option = (m) => el('option', { value: m.name }, `${m.title} · ${m.megabytes.toFixed(0)} MB${m.present ? '' : ' · to fetch'}`);
  const of = ready.catalog.filter((m) => m.task === state.task);
  $('#model').replaceChildren(...of.map(option));
  $('#model').value = chosen ?? '';
  const info = modelInfo();
  $('#model').title = info ? `${info.title}: ${info.note} ${info.embedded ? 'Embedded.' : ''} Licence ${info.licence}.` : '';
}

function modelSettings() {
  const info = modelInfo();
  const settings = info?.settings ?? [];
  $('#model-settings').hidden = !settings.length;
  if ($('#model-params').dataset.model === info?.name) return;
  $('#model-params').dataset.model = info?.name;
  buildParams($('#model-params'), settings, state.configured?.settings ?? {}, (values) => configure({ settings: values }));
}

function tabs() {
  for (const tab of TABS) {
    const button = $(`#tab-${tab}`);
    button.setAttribute('aria-selected', String(tab === state.tab));
    button.tabIndex = tab === state.tab ? 0 : -1;
    button.disabled = Boolean(state.ready) && tab !== 'whatif' && !state.ready.tasks.includes(tab);
  }
}

let configuredAs = '';
on('ready', (ready) => {
  const { task, model, settings } = ready.configured ?? {};
  if (!task) {
    chooseModel(state.task, firstModel(state.task));
    return;
  }
  if (task !== state.task) set({ task, tab: state.tab === 'whatif' ? 'whatif' : task });
  remembered.set(task, model);
  models(ready);
  modelSettings();
  tabs();
  const now = JSON.stringify([task, model, settings]);
  if (now === configuredAs && state.picture?.result) return;
  const changed = now !== configuredAs;
  configuredAs = now;
  if (state.source === 'still') look();
  else if (changed) refresh();
});
document.addEventListener('click', (event) => { if (!$('#model-settings').contains(event.target)) $('#model-settings').open = false; });
on('leave', () => { $('#model-settings').open = false; });
on('state:connection', (connection) => { if (connection === 'gone' && state.picture) state.picture.seq = null; });
on('state:tab', tabs);
on('explain-target', (target) => explainTarget(target));

for (const tab of TABS) $(`#tab-${tab}`).addEventListener('click', () => openTab(tab));
$('#tabs').addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const open = TABS.filter((tab) => !$(`#tab-${tab}`).disabled);
  const next = open[(open.indexOf(state.tab) + step + open.length) % open.length];
  openTab(next);
  $(`#tab-${next}`).focus();
});
$('#model').addEventListener('change', (event) => chooseModel(state.task, event.target.value));

/* Camera, files, freezing ------------------------------------------------------------------------------------ */
$('#camera').addEventListener('click', () => (cameraOn() ? stopCamera() : startCamera()));
$('#device').addEventListener('change', (event) => startCamera(event.target.value));
on('devices', (devices) => {
  $('#device').replaceChildren(...devices.map((d) => el('option', { value: d.deviceId, selected: d.used }, d.label)));
  $('#device-choice').hidden = devices.length < 2;
});
const toggleFreeze = () => (state.source === 'camera' ? freeze() : unfreeze());
$('#freeze').addEventListener('click', toggleFreeze);
$('#upload').addEventListener('click', () => $('#file').click());
$('#file').addEventListener('change', async (event) => {
  const [file] = event.target.files;
  if (file) await openFile(file, file.name, { uploaded: true });
  event.target.value = '';
});
$('#mirror').addEventListener('change', (event) => set({ mirror: event.target.checked }));

on('state:source', (source) => {
  $('#camera').textContent = cameraOn() ? 'Camera off' : 'Camera';
  $('#camera').setAttribute('aria-pressed', String(cameraOn()));
  $('#freeze').disabled = !cameraOn();
  $('#freeze').textContent = source === 'still' && cameraOn() ? 'Go live' : 'Freeze';
  $('#freeze').setAttribute('aria-pressed', String(source === 'still' && cameraOn()));
  $('#mirror-choice').hidden = source !== 'camera';
  document.body.dataset.source = source;
});

let depth = 0;
const dropping = (on) => { $('#drop-hint').hidden = !on; };
document.addEventListener('dragenter', (event) => { event.preventDefault(); depth += 1; dropping(true); });
document.addEventListener('dragleave', () => { depth -= 1; if (depth <= 0) dropping(false); });
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  depth = 0;
  dropping(false);
  const [file] = event.dataTransfer.files;
  if (file) openFile(file, file.name, { uploaded: true });
  else emit('failure', { message: 'That was no picture file. Drop a JPEG, PNG or WebP file from a folder.' });
});
document.addEventListener('paste', (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith('image/'));
  if (file) openFile(file, 'Pasted picture', { uploaded: true });
});

/* How the map looks ------------------------------------------------------------------------------------------ */
function palettes() {
  const signed = methodInfo()?.signed ?? false;
  const names = Object.keys(signed ? DIVERGING : SEQUENTIAL);
  $('#palette').replaceChildren(...names.map((name) => el('option', { value: name }, words(name.replace('-', ' to ')))));
  $('#palette').value = signed ? state.diverging : state.palette;
}
$('#palette').addEventListener('change', (event) => set({ [methodInfo()?.signed ? 'diverging' : 'palette']: event.target.value }));
$('#opacity').addEventListener('input', (event) => set({ opacity: Number(event.target.value) }));
$('#overlay').addEventListener('change', (event) => set({ overlay: event.target.checked }));
on('state:overlay', (overlay) => { $('#overlay').checked = overlay; });
on('state:method', palettes);
on('ready', palettes);

/* Theme, presenting, help ------------------------------------------------------------------------------------ */
function theme() {
  if (state.theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = state.theme;
  emit('theme', state.theme);
}
$('#theme').addEventListener('click', () => {
  const dark = state.theme === 'dark' || (state.theme === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches);
  set({ theme: dark ? 'light' : 'dark' });
});
on('state:theme', theme);

function present() {
  const presenting = document.body.classList.toggle('presenting');
  $('#present').setAttribute('aria-pressed', String(presenting));
  if (presenting) document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
}
document.addEventListener('fullscreenchange', () => {
  if (!document.fullscreenElement && document.body.classList.contains('presenting')) present();
});
$('#present').addEventListener('click', present);
$('#help').addEventListener('click', () => $('#keys').showModal());

onKey(' ', () => { if (cameraOn()) toggleFreeze(); return true; });
TABS.forEach((tab, i) => onKey(String(i + 1), () => { openTab(tab); return true; }));
onKey('m', (event) => { nextMethod(event.shiftKey ? -1 : 1); return true; });
onKey('o', () => { set({ overlay: !state.overlay }); return true; });
onKey('p', () => { present(); return true; });
onKey('?', () => { $('#keys').showModal(); return true; });
onKey('ArrowRight', () => { walk(1); return true; });
onKey('ArrowLeft', () => { walk(-1); return true; });
onKey('ArrowDown', () => { walk(1); return true; });
onKey('ArrowUp', () => { walk(-1); return true; });
onKey('Escape', () => {
  if (!document.body.classList.contains('presenting') || document.fullscreenElement) return false;
  present();
  return true;
});

$('#opacity').value = state.opacity;
$('#mirror').checked = state.mirror;
theme();
tabs();
connect();
