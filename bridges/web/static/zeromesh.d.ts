/** The JavaScript client of a zeromesh gateway. See zeromesh.js. */

/** Anything JSON carries, and bytes. */
export type Value = null | boolean | number | string | Uint8Array | Value[] | { [key: string]: Value };

export interface Message {
  topic: string;
  value: any;
  /** The publishing node's name. */
  sender: string;
  sequence: number;
  /** Seconds since the Unix epoch, by the sender's clock. */
  timestamp: number;
  headers: Record<string, string>;
}

export interface Reply {
  value: any;
  sender: string;
}

export interface Peer {
  id: string;
  name: string;
  member: string;
  endpoints: string[];
  state: "alive" | "suspect" | "left";
  /** Smoothed round trip in seconds, null until it was measured. */
  rtt: number | null;
}

export interface PeerEvent {
  change: "joined" | "suspected" | "recovered" | "left";
  peer: Peer;
}

export type State = "connecting" | "ready" | "closed";

export class MeshError extends Error {
  /** The gateway's word for it: "NoResponders", "TopicError", "NotAuthorized", "Disconnected" … */
  name: string;
  constructor(name: string, message: string);
}

export interface SubscriptionOptions {
  /** Messages kept for an iterator that is slow (1,000). */
  buffer?: number;
  /** Called with the number of messages that will never come. */
  ondrop?: (count: number) => void;
}

export interface Subscription<T> extends AsyncIterable<T> {
  readonly pattern: string | undefined;
  /** Messages that this client was too slow for, here or at the gateway. */
  readonly dropped: number;
  readonly closed: boolean;
  /** Fulfilled when the subscription is live; a new promise after each reconnection. */
  readonly live: Promise<void>;
  close(): void;
}

export interface Mesh {
  readonly state: State;
  /** The name of the gateway's node, null before it is known. */
  readonly node: string | null;
  readonly ready: Promise<Mesh>;
  subscribe(pattern: string, listener?: (message: Message) => void, options?: SubscriptionOptions): Subscription<Message>;
  peers(listener?: (event: PeerEvent) => void, options?: SubscriptionOptions): Subscription<PeerEvent>;
  publish(topic: string, value?: Value, options?: { headers?: Record<string, string> }): Promise<void>;
  /** `timeout` is in seconds. */
  request(topic: string, value?: Value, options?: { timeout?: number; headers?: Record<string, string> }): Promise<Reply>;
  close(): void;
}

export interface Options {
  /** ws:// or wss://; in a page the gateway's own /ws unless given. */
  url?: string;
  token?: string;
  reconnect?: boolean;
  onstate?: (state: State, why?: MeshError) => void;
  /** Another implementation of WebSocket. */
  WebSocket?: new (url: string, protocols?: string) => any;
}

export function connect(options?: Options): Mesh;
export function pack(value: unknown): unknown;
export function unpack(value: unknown): any;
