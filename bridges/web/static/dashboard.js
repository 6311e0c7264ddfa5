/**
 * The dashboard: what the gateway's node sees, on one page.
 *
 * Presence and messages come over the WebSocket (zeromesh.js); counters and traffic are asked for every two seconds
 * while the page is visible.  Nothing that came from the mesh is ever used as markup: all of it is text nodes.
 */
import { connect, pack } from "./zeromesh.js";

const EVERY = 2000;
const KEPT = 200; // messages shown
const HISTORY = 40; // round trips a peer
const PAIRS = 100; // rows of pairs

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; texts become text nodes. */
function make(tag, attributes = {}, ...children) {
  const space = ["circle", "line", "text", "polyline", "title", "g"].includes(tag) ? SVG : null;
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const seconds = (rtt) => (rtt === null ? "–" : rtt < 0.001 ? `${Math.round(rtt * 1e6)} µs` : `${number.format(rtt * 1000)} ms`);
const clock = (when) => new Date(when).toLocaleTimeString("en", { hour12: false });

let mesh;
let subscription = null;
const peers = new Map(); // id → peer
let between = []; // pairs of nodes whose round trip is known
const trips = new Map(); // id → recent round trips
let before = null; // the last statistics, for rates
const troubles = new Map(); // "what|where" → {count, last}

// -- the connection ------------------------------------------------------------------------

function begin() {
  mesh?.close();
  peers.clear();
  subscription = null;
  const token = sessionStorage.getItem("token") ?? undefined;
  mesh = connect({ token, onstate: told });
  mesh.peers(({ change, peer }) => {
    if (change === "left") peers.delete(peer.id);
    else peers.set(peer.id, peer);
    showPeers();
  });
}

function told(state, why) {
  const shown = $("state");
  shown.className = `state ${state}`;
  shown.textContent = why ? `${state}: ${why.message}` : state;
  if (state === "ready") {
    $("node").textContent = mesh.node;
    document.title = `${mesh.node} · zeromesh`;
    notice("");
    look();
  } else {
    peers.clear(); // they are told anew
    if (why?.name === "NotAuthenticated") notice("This gateway wants a token: mesh token create --allow 'subscribe:**'");
  }
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  begin();
});

async function ask(path) {
  const token = sessionStorage.getItem("token");
  const answer = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (!answer.ok) throw new Error((await answer.json()).detail ?? answer.statusText);
  return answer.json();
}

// -- counters ---------------------------------------------------------------------------------

async function look() {
  if (document.hidden || mesh.state !== "ready") return;
  const [statistics, traffic, pairs] = await Promise.allSettled(
    ["statistics", "traffic", "round-trips"].map((name) => ask(`/api/v1/${name}`)));
  if (statistics.status === "fulfilled") showStatistics(statistics.value);
  if (traffic.status === "fulfilled") showTraffic(traffic.value);
  else rows($("traffic"), [[[traffic.reason.message, "none wrap"]]]);
  if (pairs.status === "fulfilled") showPairs(pairs.value);
}

function showStatistics(now) {
  const at = performance.now();
  const rate = (key) => (before ? ((now[key] - before.now[key]) * 1000) / (at - before.at) : 0);
  const tiles = [
    ["Peers", peers.size],
    ["Published", now.published, rate("published")],
    ["Received", now.received, rate("received")],
    ["Lost", now.lost, rate("lost"), now.lost > 0],
    ["Dropped", now.dropped + now.web.dropped, 0, now.dropped + now.web.dropped > 0],
    ["Repaired", now.repaired],
    ["Refused frames", now.rejected, 0, now.rejected > 0],
    ["Served", now.requests_served, rate("requests_served")],
    ["Web clients", now.web.clients],
  ];
  $("tiles").replaceChildren(
    ...tiles.map(([name, value, perSecond, bad]) =>
      make("div", bad ? { class: "bad" } : {}, make("dt", {}, name),
        make("dd", {}, compact.format(value), ...(perSecond ? [make("small", {}, `${compact.format(perSecond)}/s`)] : []))),
    ),
  );
  for (const peer of now.peers) {
    const known = peers.get(peer.id);
    if (!known) continue;
    known.rtt = peer.rtt;
    known.lost = peer.lost;
    const history = trips.get(peer.id) ?? [];
    if (peer.rtt !== null) history.push(peer.rtt);
    trips.set(peer.id, history.slice(-HISTORY));
  }
  for (const id of trips.keys()) if (!peers.has(id)) trips.delete(id);
  showPeers();
  showTrouble(now);
  showBridges(now.bridges);
  before = { now, at };
}

/** Fills a table's body: each cell is text, a node, or [text, class]. */
function rows(table, lines, none = "nothing yet") {
  const columns = table.tHead.rows[0].cells.length;
  const made = lines.map((line) =>
    make("tr", {}, ...line.map((cell) => {
      const [content, kind] = Array.isArray(cell) ? cell : [cell];
      const attributes = kind ? { class: kind } : {};
      if (line.length === 1) attributes.colspan = columns;
      return make("td", attributes, content instanceof Node ? content : String(content));
    })),
  );
  table.tBodies[0].replaceChildren(...(made.length ? made : [make("tr", {}, make("td", { class: "none", colspan: columns }, none))]));
}

function showPeers() {
  const all = [...peers.values()].sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
  rows($("peers"), all.map((peer) => [
    [make("span", { title: peer.id }, peer.name)],
    [peer.state, peer.state],
    [seconds(peer.rtt), "n"],
    spark(trips.get(peer.id) ?? []),
    [peer.lost ?? 0, peer.lost ? "n bad" : "n"],
    [peer.endpoints[0] ?? "", "muted"],
  ]), "nobody else is here");
  drawGraph(all);
}

function spark(values) {
  const most = Math.max(...values, 1e-9);
  const points = values.map((value, at) => `${((at * 82) / (HISTORY - 1)).toFixed(1)},${(17 - (value / most) * 15).toFixed(1)}`);
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", "spark");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", values.length ? `round trips up to ${seconds(most)}` : "no round trips yet");
  picture.append(make("polyline", { points: points.join(" ") }));
  return picture;
}

/** This node in the middle, its peers around it; the nearer, the shorter the round trip. */
function drawGraph(all) {
  const shown = all.slice(0, 60);
  const parts = [];
  const places = new Map();
  const measured = shown.map((peer) => peer.rtt).filter((rtt) => rtt !== null);
  const [low, high] = [Math.min(...measured, 1), Math.max(...measured, 1e-9)];
  shown.forEach((peer, at) => {
    const angle = (at / shown.length) * 2 * Math.PI - Math.PI / 2;
    const far = peer.rtt === null || high === low ? 0.85 : 0.6 + (0.4 * Math.log(peer.rtt / low)) / Math.log(high / low);
    const [x, y] = [200 + Math.cos(angle) * 155 * far, 118 + Math.sin(angle) * 95 * far];
    places.set(peer.id, [x, y]);
    parts.unshift(make("line", { x1: 200, y1: 118, x2: x, y2: y, class: peer.state }));
    parts.push(make("circle", { cx: x, cy: y, r: shown.length > 30 ? 4 : 6, class: peer.state },
      make("title", {}, `${peer.name}: ${peer.state}, ${seconds(peer.rtt)}`)));
    if (shown.length > 30) return;
    parts.push(make("text", { x, y: y + 17 }, peer.name));
    const length = Math.hypot(x - 200, y - 118) || 1;
    const aside = x < 200 ? -1 : 1; // beside its line, above it where it can be
    parts.push(make("text", { x: (200 + x) / 2 + (aside * 15 * (y - 118)) / length, y: (120 + y) / 2 - (aside * 7 * (x - 200)) / length, class: "rtt" },
      peer.rtt === null ? "" : seconds(peer.rtt)));
  });
  for (const { a, b } of between) {
    const [one, other] = [places.get(a), places.get(b)];
    if (one && other) parts.unshift(make("line", { x1: one[0], y1: one[1], x2: other[0], y2: other[1], class: "far" }));
  }
  parts.push(make("circle", { cx: 200, cy: 118, r: 9, class: "me" }), make("text", { x: 200, y: 140 }, mesh?.node ?? ""));
  $("graph").replaceChildren(...parts);
}

/** Both directions of a pair in one row, the slowest first: each side measures its own. */
function showPairs({ nodes, pairs, others }) {
  const names = new Map(nodes.map(({ id, name }) => [id, name]));
  const lines = new Map(); // "a b" with a's name first → {a, b, there, back}
  for (const { from, to, seconds: rtt } of pairs) {
    const order = (names.get(from) + from).localeCompare(names.get(to) + to);
    const [a, b] = order < 0 ? [from, to] : [to, from];
    const line = lines.get(`${a} ${b}`) ?? { a, b, there: null, back: null };
    line[order < 0 ? "there" : "back"] = rtt;
    lines.set(`${a} ${b}`, line);
  }
  between = [...lines.values()];
  const slowest = ({ there, back }) => Math.max(there ?? 0, back ?? 0);
  const all = [...between].sort((one, other) => slowest(other) - slowest(one));
  rows($("pairs"), all.slice(0, PAIRS).map(({ a, b, there, back }) => [
    [make("span", { title: a }, names.get(a)), "wrap"], [make("span", { title: b }, names.get(b)), "wrap"],
    [seconds(there), "n"], [seconds(back), "n"]]), "nothing measured yet");
  const hidden = Math.max(0, all.length - PAIRS) + others;
  const silent = nodes.length - new Set(pairs.map(({ from }) => from)).size;
  $("pairs-sum").textContent = [
    hidden && `${hidden} further pairs`,
    silent && `${silent} of ${nodes.length} nodes do not say (only daemons do)`,
  ].filter(Boolean).join("; ");
}

function showTraffic({ topics, others, lost, dropped }) {
  const wanted = $("filter").value.trim().toLowerCase();
  const fitting = topics.filter((row) => row.topic.toLowerCase().includes(wanted));
  rows($("traffic"), fitting.slice(0, 200).map((row) => [
    [row.topic, "wrap"],
    [number.format(row.rate), "n"],
    [compact.format(row.messages), "n"],
    [compact.format(row.bytes), "n"],
    [row.senders.join(", "), "wrap muted"],
  ]));
  const more = [others && `${others} on further topics`, lost && `${lost} lost`, dropped && `${dropped} dropped`].filter(Boolean);
  $("traffic-sum").textContent = `${fitting.length} topics ${more.length ? `(${more.join(", ")})` : ""}`;
}
$("filter").addEventListener("input", look);

function showTrouble(now) {
  const count = (what, where, n) => {
    if (!n) return;
    const key = `${what}|${where}`;
    const known = troubles.get(key);
    if (known?.count !== n) troubles.set(key, { what, where, count: n, last: known || before ? Date.now() : null });
  };
  for (const [reason, n] of Object.entries(now.rejected_by_reason)) count(`frame refused: ${reason}`, "the mesh", n);
  for (const [reason, n] of Object.entries(now.web.rejected)) count(`turned away: ${reason.replaceAll("_", " ")}`, "this gateway", n);
  for (const peer of now.peers) count("messages lost", `from ${peer.name}`, peer.lost);
  for (const it of now.subscriptions) count("messages dropped", `subscription ${it.pattern}`, it.dropped);
  count("messages dropped", "slow web clients", now.web.dropped);
  const all = [...troubles.values()].sort((a, b) => (b.last ?? 0) - (a.last ?? 0) || b.count - a.count);
  rows($("trouble"), all.map((it) => [[it.what, "wrap"], [it.where, "wrap muted"], [compact.format(it.count), "n"], it.last ? clock(it.last) : "before"]),
    "nothing was lost, dropped or refused");
}

function showBridges(bridges) {
  const lines = Object.entries(bridges).flatMap(([name, bridge]) =>
    bridge.routes.map((route) => [name, [bridge.state, bridge.state], [route.name, "wrap"], [compact.format(route.moved), "n"], [route.lag ?? "–", "n"]]));
  rows($("bridges"), lines, "no bridges run here");
}

// -- by hand -------------------------------------------------------------------------------------

const shortened = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);
const written = (value) => shortened(typeof value === "string" ? value : JSON.stringify(pack(value)) ?? "null", 300);

$("subscribe").addEventListener("submit", (event) => {
  event.preventDefault();
  if (subscription) {
    subscription.close();
    subscription = null;
    $("subscribe-button").textContent = "Listen";
    return;
  }
  let waiting = [];
  let missed = 0;
  const flush = () => {
    const list = $("messages");
    if (missed) list.prepend(make("li", { class: "bad" }, `${missed} messages were dropped: more came than this page took`));
    list.prepend(...waiting.reverse().map((it) => make("li", {}, make("time", {}, clock(it.timestamp * 1000)), make("b", {}, it.topic), ` ${written(it.value)} `, make("span", { class: "muted" }, it.sender))));
    while (list.children.length > KEPT) list.lastChild.remove();
    waiting = [];
    missed = 0;
  };
  const later = () => waiting.length + missed === 1 && setTimeout(flush, 100);
  const mine = (subscription = mesh.subscribe(
    $("pattern").value.trim(),
    (message) => {
      waiting.push(message);
      if (waiting.length > KEPT) waiting.shift();
      else later();
    },
    { ondrop: (count) => { missed += count; setTimeout(flush, 100); } },
  ));
  $("subscribe-button").textContent = "Stop";
  mine.live.then(() => say(`listening to ${mine.pattern}`), (error) => {
    say(`${error.name}: ${error.message}`, "bad");
    if (subscription === mine) subscription = null;
    $("subscribe-button").textContent = "Listen";
  });
});

function say(text, kind = "") {
  $("answer").className = `answer ${kind}`;
  $("answer").textContent = text;
}

$("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const topic = $("topic").value.trim();
  const text = $("value").value;
  let value = text;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    // then it is the text itself, as with the command
  }
  const began = performance.now();
  try {
    if (event.submitter?.value === "request") {
      const reply = await mesh.request(topic, value);
      say(`${reply.sender}: ${written(reply.value)} (${number.format(performance.now() - began)} ms)`, "good");
    } else {
      await mesh.publish(topic, value);
      say(`published on ${topic}`, "good");
    }
  } catch (error) {
    say(`${error.name}: ${error.message}`, "bad");
  }
});

setInterval(() => look().catch(() => {}), EVERY);
document.addEventListener("visibilitychange", look);
showPeers();
begin();
