// How each state of the line looks. covers: there is no part to show as if it were now; isQuiet: nothing to tell.
// The sentences are in the catalogue: face.NAME.word, .title, .belt, .do.

const FACES = {
  connecting: { sign: "wait", tone: "", covers: true },
  offline: { sign: "away", tone: "high", covers: true },
  run_gone: { sign: "away", tone: "high", covers: true },
  not_answering: { sign: "fault", tone: "high", covers: true },
  not_allowed: { sign: "away", tone: "medium", covers: true },
  other_version: { sign: "fault", tone: "medium", covers: true },
  controller_silent: { sign: "fault", tone: "high", covers: true },
  camera_lost: { sign: "fault", tone: "high", covers: true },
  model_failed: { sign: "fault", tone: "high", covers: true },
  starting: { sign: "wait", tone: "", covers: true },
  held: { sign: "hold", tone: "person", covers: true },
  disk_full: { sign: "fault", tone: "high", covers: false },
  waits_for_person: { sign: "person", tone: "person", covers: false },
  no_parts: { sign: "wait", tone: "", covers: true },
  running: { sign: "run", tone: "", covers: false, isQuiet: true },
};

export const faceOf = (name) => ({ isQuiet: false, ...(FACES[name] ?? FACES.other_version) });
