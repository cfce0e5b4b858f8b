"""The page that the live view shows on a head unit: one document, nothing from elsewhere.

Must never hold a number: it asks `live.json` for them, once a second, and says so when no answer
comes. What it shows is set as text, never as markup.
"""

from __future__ import annotations

from typing import Final

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Battery twin</title>
<link rel="icon" href="data:,">
<style>
:root { --back: #f4f5f2; --card: #ffffff; --ink: #14181a; --soft: #566065; --line: #d5dad8;
  --good: #0a6b50; --warn: #8a5200; --bad: #b3261e; --measured: #0b5cad; --band: #b9cbe0; }
@media (prefers-color-scheme: dark) {
  :root { --back: #06090b; --card: #10161a; --ink: #e9eef0; --soft: #9aa8ae; --line: #263138;
    --good: #5fd0a8; --warn: #f0b45a; --bad: #ff8a80; --measured: #7cb8ff; --band: #24405e; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: clamp(.6rem, 2vw, 1.6rem); background: var(--back); color: var(--ink);
  font: 500 clamp(1rem, 2.2vw, 1.5rem)/1.35 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline;
  margin-bottom: .8rem; }
h1 { font-size: 1.1em; margin: 0; }
main { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 10.5em), 1fr)); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: .8rem 1rem; min-width: 0; }
.wide { grid-column: 1 / -1; }
h2 { margin: 0; color: var(--soft); font-size: .75em; font-weight: 600; }
.big { margin: .1rem 0; font-size: 2.6em; font-weight: 650; line-height: 1.1; }
.small { margin: 0; color: var(--soft); font-size: .8em; overflow-wrap: anywhere; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
svg { display: block; width: 100%; height: 7.5rem; }
#band { fill: var(--band); stroke: none; }
#predicted { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
#measured { fill: none; stroke: var(--measured); stroke-width: 2.5; }
path { vector-effect: non-scaling-stroke; }
.away main { opacity: .35; }
</style>
</head>
<body>
<header><h1 id="vehicle">Battery twin</h1>
<span id="link" role="status">no answer yet</span></header>
<main>
<section><h2>Measured voltage</h2><p class="big" id="voltage">&ndash;</p>
<p class="small" id="expected"></p></section>
<section><h2>Error of this trip</h2><p class="big" id="error">&ndash;</p>
<p class="small" id="threshold"></p></section>
<section><h2>State of health</h2><p class="big" id="health">&ndash;</p>
<p class="small" id="health-ends"></p></section>
<section><h2>Remaining range</h2><p class="big" id="range">&ndash;</p>
<p class="small" id="range-ends"></p></section>
<section class="wide"><h2 id="minutes">Last minutes: measured (line), predicted (dashes), 95 % band
</h2><svg viewBox="0 0 300 100" preserveAspectRatio="none" role="img" aria-labelledby="minutes">
<path id="band"/><path id="predicted"/><path id="measured"/></svg></section>
<section class="wide"><p class="small" id="trust"></p><p class="small" id="trip"></p>
<p class="small" id="facts"></p></section>
</main>
<script>
"use strict";
const at = (id) => document.getElementById(id);
const say = (id, text, look) => {
  at(id).textContent = text;
  if (look !== undefined) at(id).className = at(id).className.replace(/ ?(good|warn|bad)/g, "")
    + (look ? " " + look : "");
};
const fixed = (value, digits) => value === null ? "\\u2013" : value.toFixed(digits);
const ends = (found, scale, digits, unit) => "95 %: " + (found.low === null ? "?"
  : fixed(found.low * scale, digits)) + " to " + (found.high === null ? "beyond what is known"
  : fixed(found.high * scale, digits) + " " + unit);
function lines(recent) {
  const count = recent.at.length;
  if (count < 2) { for (const id of ["band", "predicted", "measured"]) at(id).setAttribute("d", "");
    return; }
  const low = recent.predicted_v.map((v, i) => v - recent.band95_v[i]);
  const high = recent.predicted_v.map((v, i) => v + recent.band95_v[i]);
  const least = Math.min(...low, ...recent.measured_v);
  const span = Math.max(...high, ...recent.measured_v) - least || 1;
  const start = recent.at[0], length = recent.at[count - 1] - start || 1;
  const point = (v, i) => (300 * (recent.at[i] - start) / length).toFixed(1) + " "
    + (96 - 92 * (v - least) / span).toFixed(1);
  const path = (values) => "M" + values.map(point).join("L");
  at("measured").setAttribute("d", path(recent.measured_v));
  at("predicted").setAttribute("d", path(recent.predicted_v));
  const back = low.map((v, i) => point(v, i)).reverse().join("L");
  at("band").setAttribute("d", path(high) + "L" + back + "Z");
}
function show(view) {
  const trip = view.trip, battery = view.battery;
  say("vehicle", view.vehicle_id);
  say("link", view.is_connected ? "connected" : "offline, keeping what it cannot send",
    view.is_connected ? "good" : "warn");
  if (trip) {
    const inside = Math.abs(trip.predicted_v - trip.measured_v) <= trip.band95_v;
    say("voltage", fixed(trip.measured_v, 2) + " V", inside ? "" : "warn");
    say("expected", "predicted " + fixed(trip.predicted_v, 2) + " \\u00b1 "
      + fixed(trip.band95_v, 2) + " V");
    say("error", fixed(1000 * trip.error_v, 0) + " mV", trip.error_v > view.threshold_v ? "bad"
      : "good");
    say("trip", "Trip " + trip.trip_id + " since "
      + new Date(1000 * trip.started_at).toLocaleTimeString() + ", " + trip.samples + " samples, "
      + fixed(100 * trip.coverage95, 0) + " % inside the band");
  } else {
    say("voltage", "\\u2013", ""); say("error", "\\u2013", "");
    say("expected", "no trip is running");
    say("trip", "No trip is running.");
  }
  say("threshold", "reported above " + fixed(1000 * view.threshold_v, 0) + " mV");
  const health = battery && battery.health, left = battery && battery.remaining;
  const look = battery && battery.state === "known" ? "" : "warn";
  say("health", health ? fixed(health.value && 100 * health.value, 0) + " %" : "\\u2013", look);
  say("health-ends", health ? battery.state + ", " + ends(health, 100, 0, "%") : "");
  say("range", left ? fixed(left.value, 0) + " " + left.unit : "\\u2013", look);
  say("range-ends", left ? battery.state + ", " + ends(left, 1, 0, left.unit) : "");
  say("trust", battery ? "The estimate is " + battery.state
    + (battery.reason ? ": " + battery.reason : "") + "." : "");
  const counted = Object.entries(view.counters).filter(([, n]) => n)
    .map(([name, n]) => name.replaceAll("_", " ") + " " + n);
  const own = view.provisional ? " and " + view.provisional + " steps of its own" : "";
  say("facts", ["Revision " + view.revision + (view.is_on_trial ? " on trial" : "") + own,
    view.outbox_messages + " messages to send", "agent " + view.agent_version,
    ...counted].join(" \\u00b7 "));
  lines(view.recent);
}
async function look() {
  try {
    const answer = await fetch("live.json", { cache: "no-store",
      signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    document.body.classList.remove("away");
  } catch (error) {
    say("link", "the agent does not answer", "bad");
    document.body.classList.add("away");
  }
  setTimeout(look, 1000);
}
look();
</script>
</body>
</html>
"""
