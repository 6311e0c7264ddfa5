/**
 * The JavaScript client of a zeromesh gateway: an ES module without dependencies, for browsers and Node.
 *
 *     import { connect } from "./zeromesh.js";
 *     const mesh = connect({ url: "ws://127.0.0.1:7480/ws", token: "zmt_…" });
 *     mesh.subscribe("home/**", (message) => console.log(message.topic, message.value));
 *     await mesh.publish("home/hall/lamp", { on: true });
 *     console.log((await mesh.request("home/oven", { set: 180 })).value);
 *
 * How it flows: a call → an operation with an id → the socket; what comes back with that id → the call's promise or
 * the subscription's listener.  A connection that is lost is made anew after a random time (full jitter, doubling),
 * and subscriptions are asked for again; calls that were waiting fail with `Disconnected`, since nobody knows
 * whether they were carried out.  Bytes are `Uint8Array` on this side and {"base64": …} on the wire.
 */

const SUBPROTOCOL = "zeromesh.v1.json";
const FIRST_PAUSE = 250; // milliseconds; doubles with each failure
const LONGEST_PAUSE = 15000;
const ANSWER_WITHIN = 30000;
const NOT_AUTHENTICATED = 4401;

/** What went wrong. `name` is the gateway's word for it: "NoResponders", "TopicError", "NotAuthorized" … */
export class MeshError extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

/** One subscription: a listener, or an async iterator that keeps the newest messages it was not yet asked for. */
class Subscription {
  constructor(mesh, id, pattern, listener, { buffer = 1000, ondrop } = {}) {
    this.pattern = pattern;
    this.dropped = 0;
    this._id = id;
    this.closed = false;
    this._mesh = mesh;
    this._listener = listener;
    this._ondrop = ondrop;
    this._buffer = buffer;
    this._queue = [];
    this._waiting = [];
    this._renew();
  }

  /** Ends it. */
  close() {
    this._mesh._leave(this);
  }

  [Symbol.asyncIterator]() {
    return {
      next: () => {
        if (this._queue.length) return Promise.resolve({ value: this._queue.shift(), done: false });
        if (this._failure) return Promise.reject(this._failure);
        if (this.closed) return Promise.resolve({ value: undefined, done: true });
        return new Promise((resolve, reject) => this._waiting.push({ resolve, reject }));
      },
      return: () => {
        this.close();
        return Promise.resolve({ value: undefined, done: true });
      },
    };
  }

  /** `live` is fulfilled when the gateway says so; again, a new one, after each reconnection. */
  _renew() {
    this._wasLive = false;
    this.live = new Promise((resolve, reject) => {
      this._isLive = () => {
        this._wasLive = true;
        resolve();
      };
      this._isNot = reject;
    });
    this.live.catch(() => {}); // who does not ask is not told
  }

  _give(message) {
    if (this._listener) return this._listener(message);
    const next = this._waiting.shift();
    if (next) return next.resolve({ value: message, done: false });
    this._queue.push(message);
    if (this._queue.length > this._buffer) {
      this._queue.shift();
      this._miss(1);
    }
  }

  _miss(count) {
    this.dropped += count;
    this._ondrop?.(count);
  }

  _end(failure) {
    this.closed = true;
    this._failure = failure;
    this._isNot(failure ?? new MeshError("Closed", "the subscription is closed"));
    for (const { resolve, reject } of this._waiting.splice(0)) {
      if (failure) reject(failure);
      else resolve({ value: undefined, done: true });
    }
  }
}

/** A connection to a gateway that keeps itself up. Made by `connect`. */
class Mesh {
  constructor(options) {
    this.state = "connecting";
    this.node = null;
    this._options = options;
    this._next = 1;
    this._calls = new Map(); // id → {resolve, reject, timer}
    this._subscriptions = new Map(); // id → Subscription
    this._failures = 0;
    this._queue = []; // operations asked for before the gateway is ready
    this._reset();
    this._open();
  }

  /** Subscribes. With a listener it is called with each message; without one, iterate: `for await (… of …)`. */
  subscribe(pattern, listener, options) {
    return this._enter({ op: "subscribe", pattern }, listener, options);
  }

  /** The peers that are there, then every change: {change: "joined" | "suspected" | "recovered" | "left", peer}. */
  peers(listener, options) {
    return this._enter({ op: "peers" }, listener, options);
  }

  /** Publishes; fulfilled once the gateway's node has it. */
  async publish(topic, value, { headers } = {}) {
    await this._call({ op: "publish", topic, value: pack(value), headers });
  }

  /** Asks; fulfilled with {value, sender}. `timeout` is in seconds. */
  request(topic, value, { timeout, headers } = {}) {
    const patience = timeout === undefined ? ANSWER_WITHIN : timeout * 1000 + 5000;
    return this._call({ op: "request", topic, value: pack(value), timeout, headers }, patience);
  }

  /** Ends the connection, and does not make it anew. */
  close() {
    this._stopped = true;
    clearTimeout(this._timer);
    this._fail(new MeshError("Closed", "the connection is closed"), true);
    this._socket?.close(1000);
    this._say("closed");
  }

  // -- the connection ---------------------------------------------------------------------

  _reset() {
    this.ready = new Promise((resolve, reject) => {
      this._isReady = resolve;
      this._isNotReady = reject;
    });
    this.ready.catch(() => {});
  }

  _open() {
    const { url, WebSocket: Socket = globalThis.WebSocket } = this._options;
    let socket;
    try {
      socket = this._socket = new Socket(url, SUBPROTOCOL);
    } catch (error) {
      this._stopped = true;
      return this._fail(error, true);
    }
    socket.onopen = () => {
      if (this._options.token) socket.send(JSON.stringify({ op: "auth", token: this._options.token }));
    };
    socket.onmessage = (event) => {
      if (socket === this._socket) this._take(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (socket === this._socket) this._lost(event);
    };
  }

  _lost({ code, reason }) {
    if (this._stopped) return;
    const failure = new MeshError(
      code === NOT_AUTHENTICATED ? "NotAuthenticated" : "Disconnected",
      reason || `the connection was lost (${code})`,
    );
    const given_up = code === NOT_AUTHENTICATED || this._options.reconnect === false;
    this._fail(failure, given_up);
    if (given_up) {
      this._stopped = true;
      return this._say("closed", failure);
    }
    if (this.state === "ready") this._reset();
    const most = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this._failures++);
    this._timer = setTimeout(() => this._open(), Math.random() * most);
    this._say("connecting", failure);
  }

  /** Fails what waits; and all that there is, if this was the end. */
  _fail(failure, all) {
    for (const { reject, timer } of this._calls.values()) {
      clearTimeout(timer);
      reject(failure);
    }
    this._calls.clear();
    this._queue = [];
    if (!all) return;
    this._isNotReady(failure);
    for (const subscription of this._subscriptions.values()) {
      subscription._end(failure.name === "Closed" ? undefined : failure);
    }
    this._subscriptions.clear();
  }

  _say(state, why) {
    if (this.state === state && !why) return;
    this.state = state;
    this._options.onstate?.(state, why);
  }

  // -- operations ---------------------------------------------------------------------------

  _send(operation) {
    if (this._stopped) throw new MeshError("Closed", "the connection is closed");
    if (this.state === "ready") this._socket.send(JSON.stringify(operation));
    else this._queue.push(operation);
  }

  _call(operation, patience = ANSWER_WITHIN) {
    return new Promise((resolve, reject) => {
      const id = this._next++;
      this._send({ ...operation, id });
      const timer = setTimeout(() => {
        this._calls.delete(id);
        reject(new MeshError("RequestTimeout", "the gateway did not answer"));
      }, patience);
      this._calls.set(id, { resolve, reject, timer });
    });
  }

  _enter(operation, listener, options) {
    const id = this._next++;
    const subscription = new Subscription(this, id, operation.pattern, listener, options);
    subscription._operation = { ...operation, id };
    if (this._stopped) throw new MeshError("Closed", "the connection is closed");
    this._subscriptions.set(id, subscription);
    if (this.state === "ready") this._send(subscription._operation); // else with all others, when it is
    return subscription;
  }

  _leave(subscription) {
    if (!this._subscriptions.delete(subscription._id)) return;
    if (this.state === "ready") this._send({ op: "unsubscribe", id: subscription._id });
    subscription._end();
  }

  _take(answer) {
    const { op, id } = answer;
    if (op === "message") return this._subscriptions.get(id)?._give(unpacked(answer));
    if (op === "ready") return this._begin(answer.node);
    if (op === "dropped") return this._subscriptions.get(id)?._miss(answer.count);
    if (op === "subscribed") return this._subscriptions.get(id)?._isLive();
    if (op === "peer") {
      const watch = this._subscriptions.get(id);
      watch?._isLive();
      return watch?._give({ change: answer.change, peer: answer.peer });
    }
    const call = this._calls.get(id);
    if (call) {
      this._calls.delete(id);
      clearTimeout(call.timer);
    }
    if (op === "published") return call?.resolve();
    if (op === "reply") return call?.resolve({ value: unpack(answer.value), sender: answer.sender });
    if (op === "error") {
      const failure = new MeshError(answer.error, answer.message);
      call?.reject(failure);
      const refused = this._subscriptions.get(id);
      if (refused) {
        this._subscriptions.delete(id); // it would be refused again after every reconnection
        refused._end(failure);
      }
    }
  }

  _begin(node) {
    this.node = node;
    this._failures = 0;
    this.state = "ready";
    for (const subscription of this._subscriptions.values()) {
      if (subscription._wasLive) subscription._renew();
      this._send(subscription._operation);
    }
    for (const operation of this._queue.splice(0)) this._send(operation);
    this._isReady(this);
    this._options.onstate?.("ready");
  }
}

function unpacked({ topic, value, sender, sequence, timestamp, headers = {} }) {
  return { topic, value: unpack(value), sender, sequence, timestamp, headers };
}

/** Values for the wire: bytes as {"base64": …}, at any depth. */
export function pack(value) {
  if (value instanceof ArrayBuffer) value = new Uint8Array(value);
  if (ArrayBuffer.isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return { base64: btoa(text) };
  }
  if (Array.isArray(value)) return value.map(pack);
  if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, pack(each)]));
  }
  return value;
}

/** Values from the wire: {"base64": …} as Uint8Array, at any depth. */
export function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (value === null || typeof value !== "object") return value;
  const keys = Object.keys(value);
  if (keys.length === 1 && keys[0] === "base64" && typeof value.base64 === "string") {
    return Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0));
  }
  return Object.fromEntries(keys.map((key) => [key, unpack(value[key])]));
}

/**
 * Connects to a gateway. Options: `url` (in a page the gateway's own /ws unless given), `token`, `reconnect` (true),
 * `onstate(state, why)` with "connecting", "ready" or "closed", `WebSocket` (another implementation of it).
 */
export function connect(options = {}) {
  const { location } = globalThis;
  const url = options.url ?? (location && `${location.protocol.replace("http", "ws")}//${location.host}/ws`);
  if (!url) throw new TypeError("url: where is the gateway? (ws://HOST:PORT/ws)");
  return new Mesh({ ...options, url });
}
