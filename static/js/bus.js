/* A tiny event bus: modules talk through it and never import each other for news.
   on(name, fn) -> a function that stops listening; emit(name, detail) calls every listener in order.
   Names in use: ready, result, explanation (live ones), progress, failure, credit, connection,
   state and state:KEY (see state.js), frame (a picture is on the stage), explained (an explanation is
   shown; detail null when it is taken away), still (a still's result is here), clear (another model: forget
   what is shown), unexplained (a Failure: why there is no map), theme, leave (Esc: close what you have open). */
const listeners = new Map();

export function on(name, fn) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(fn);
  return () => listeners.get(name).delete(fn);
}

export function emit(name, detail) {
  for (const fn of [...(listeners.get(name) ?? [])]) fn(detail);
}
