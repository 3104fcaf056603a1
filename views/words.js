"use strict";
// How the page puts things: the same as words.py, and a test compares what comes out.

const NONE = "–";
const STATES = {
  new: "new",
  ready: "ready",
  not_ready: "not ready",
  terminating: "terminating",
  set_aside: "set aside",
  gone: "gone",
};

function decimals(count) {
  const digits = { minimumFractionDigits: count, maximumFractionDigits: count };
  return new Intl.NumberFormat("en-US", { ...digits, roundingMode: "halfEven" }); // as Python does
}

const whole = decimals(0);
const tenths = decimals(1);

function number(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

function percent(part) {
  return part === null || part === undefined ? NONE : `${whole.format(part * 100)} %`;
}

function seconds(value) {
  if (value === null) return NONE;
  if (value < 0.9995) return `${whole.format(value * 1000)} ms`;
  if (value < 9.95) return `${tenths.format(value)} s`;
  if (value < 120) return `${whole.format(value)} s`;
  return value < 7200 ? `${Math.floor(value / 60)} min` : `${Math.floor(value / 3600)} h`;
}

function clockTime(at, now, milliseconds) {
  const text = new Date(Math.round(at * 1000)).toISOString();
  const today = text.slice(0, 10) === new Date(now * 1000).toISOString().slice(0, 10);
  const day = today ? "" : `${text.slice(5, 10)} `;
  return day + text.slice(11, milliseconds ? 23 : 19);
}

function kind(name) {
  return name.replaceAll("_", " ");
}

function plural(what, count) {
  return `${whole.format(count)} ${what}${count === 1 ? "" : "s"}`;
}

function left(what, count) {
  return count > 0 ? `… and ${plural(what, count)} more in status.json` : "";
}

function states(counts) {
  const found = Object.entries(counts).filter(([, count]) => count);
  return found.map(([state, count]) => `${whole.format(count)} ${STATES[state]}`).join(", ") || "no endpoints";
}

function delay(event, workers) {
  if (event.worker !== null) return workers > 1 ? `by worker ${event.worker}` : "";
  if (event.delay === null) return "";
  return `${event.exact ? "" : "at most "}${seconds(event.delay)} after the API said so`;
}

function summary(state) {
  const alone = state.workers.length === 1;
  const troubles = state.troubles.map((one) => (alone ? one.reason : `worker ${one.worker}: ${one.reason}`));
  if (state.last_poll_error) {
    troubles.push(`the last list of endpoints failed: ${kind(state.last_poll_error)}`);
  }
  const age = state.snapshot_age_seconds;
  return {
    state: state.ready ? "ready" : "not_ready",
    state_word: state.ready ? "ready" : "not ready",
    reason: troubles.join("; "),
    gateway: state.gateway,
    version: state.version,
    workers: plural("worker", state.workers.length),
    age: age === null ? "never" : `${tenths.format(age)} s ago`,
    at: clockTime(state.at, state.at),
  };
}

// Where the counts of a histogram's buckets reach that part of all; null where there are none.
function quantile(buckets, part) {
  const total = buckets.length ? buckets.at(-1)[1] : 0;
  if (!total) return null;
  const wanted = part * total;
  let lower = 0;
  let below = 0;
  for (const [bound, count] of buckets) {
    if (bound === null) break;
    if (count >= wanted && count > below) {
      return lower + ((bound - lower) * (wanted - below)) / (count - below);
    }
    [lower, below] = [bound, count];
  }
  return lower;
}
