// What the declarations of zeromesh.js allow, and what they do not: checked by tsc, never run.
// implementation.js is a copy of zeromesh.js, of which tsc sees the code and not the declarations.
import * as declared from "./zeromesh.js";
import * as written from "./implementation.js";

// The same names on both sides, but for what begins with an underscore.
type Names<T> = { [Name in keyof T as Name extends `_${string}` ? never : Name]: unknown };
type Missing<A, B> = Exclude<keyof Names<A>, keyof Names<B>>;
type WrittenMesh = ReturnType<typeof written.connect>;
type WrittenSubscription = ReturnType<WrittenMesh["subscribe"]>;
type DeclaredSubscription = declared.Subscription<declared.Message>;
const none: [
  Missing<typeof declared, typeof written>, Missing<typeof written, typeof declared>,
  Missing<declared.Mesh, WrittenMesh>, Missing<WrittenMesh, declared.Mesh>,
  Missing<DeclaredSubscription, WrittenSubscription>, Missing<WrittenSubscription, DeclaredSubscription>,
] extends [never, never, never, never, never, never] ? true : false = true;

// How it is used.
const { connect, MeshError, pack, unpack } = declared;
const mesh: declared.Mesh = connect({ url: "ws://127.0.0.1:7480/ws", token: "t", reconnect: false });
connect({ WebSocket: globalThis.WebSocket, onstate: (state, why) => [state satisfies declared.State, why?.message] });
const node: string | null = (await mesh.ready).node;
const readings = mesh.subscribe("home/**", ({ topic, sender, sequence, timestamp, headers }) => {
  const all: [string, string, number, number, string | undefined] = [topic, sender, sequence, timestamp, headers.unit];
  void all;
}, { buffer: 10, ondrop: (count: number) => count + 1 });
await readings.live;
for await (const message of mesh.subscribe("home/*")) message.topic.toUpperCase();
for await (const { change, peer } of mesh.peers()) if (change === "joined" && peer.rtt !== null) peer.rtt.toFixed(3);
await mesh.publish("a", { deep: [1, "x", null, new Uint8Array(2)] }, { headers: { a: "b" } });
const reply: declared.Reply = await mesh.request("a", undefined, { timeout: 5 });
try { mesh.close(); } catch (error) { if (error instanceof MeshError) error.name.length; }
void [none, node, reply, pack(1), unpack(1), readings.dropped, readings.closed, readings.pattern];

// What is a mistake.
// @ts-expect-error: a pattern is text
mesh.subscribe(7);
// @ts-expect-error: no function is a value
await mesh.publish("a", () => 1);
// @ts-expect-error: headers are texts
await mesh.publish("a", 1, { headers: { a: 1 } });
// @ts-expect-error: seconds are a number
await mesh.request("a", 1, { timeout: "5" });
// @ts-expect-error: there is no such option
connect({ adress: "ws://127.0.0.1:7480/ws" });
// @ts-expect-error: it is read-only
mesh.state = "ready";
