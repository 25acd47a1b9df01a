// Streams of the API that begin with an Upgrade: a WebSocket carries their bytes, which are frames as the daemon's
// package frame describes them.

import { Problem, ticket } from "./api";

/** What a frame carries. The numbers are those of the daemon's package frame. */
export const Frame = {
  stdin: 2,
  stdinEOF: 3,
  size: 4,
  signal: 5,
  response: 6,
  started: 7,
  stdout: 8,
  stderr: 9,
  exit: 10,
  error: 11,
  screen: 13,
  stamp: 14,
} as const;

const header = 8; // bytes: the type, three zeros, and the length of the payload
const most = 1 << 20; // bytes of a payload
const piece = 64 << 10; // bytes of one frame that this page sends
const full = 1 << 20; // bytes that may wait in the browser before a sender has to wait

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export interface Handler {
  frame: (type: number, payload: Uint8Array) => void;
  /** Called once, at the end, with a reason if the stream has failed or could not begin. */
  end: (problem: Problem | null) => void;
}

/** Reads frames out of bytes that come in pieces of any size. */
export class FrameReader {
  #waiting = new Uint8Array(0);

  constructor(private readonly each: (type: number, payload: Uint8Array) => void) {}

  take(bytes: Uint8Array): void {
    let all = bytes;
    if (this.#waiting.length) {
      all = new Uint8Array(this.#waiting.length + bytes.length);
      all.set(this.#waiting);
      all.set(bytes, this.#waiting.length);
    }
    let at = 0;
    while (all.length - at >= header) {
      const length = new DataView(all.buffer, all.byteOffset + at).getUint32(4);
      if (length > most) throw new Problem("the daemon sent a frame that is too long");
      if (all.length - at - header < length) break;
      this.each(all[at]!, all.subarray(at + header, at + header + length));
      at += header + length;
    }
    this.#waiting = all.slice(at);
  }
}

/** A stream that has begun, or is about to. What is sent before it has begun waits. */
export class Stream {
  #socket: WebSocket | null = null;
  #early: Uint8Array<ArrayBuffer>[] = [];
  #over = false;

  constructor(
    path: string,
    query: Record<string, string | number | boolean | undefined>,
    upgrade: string,
    private readonly handler: Handler,
    body?: unknown,
    /** More of the query, which is escaped already. */
    more = "",
  ) {
    void this.#begin(path, query, upgrade, body, more);
  }

  async #begin(
    path: string,
    query: Record<string, unknown>,
    upgrade: string,
    body: unknown,
    more: string,
  ): Promise<void> {
    const values = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) values.set(name, String(value));
    try {
      values.set("ticket", await ticket("GET", decodeURI(path)));
    } catch (e) {
      this.#end(e instanceof Problem ? e : new Problem(String(e)));
      return;
    }
    if (this.#over) return;
    const socket = (this.#socket = new WebSocket(`ws://${location.host}${path}?${values}&${more}`));
    socket.binaryType = "arraybuffer";
    const reader = new FrameReader((type, payload) => {
      if (this.#over) return;
      if (type === Frame.error) this.#end(problemOfFrame(payload));
      else this.handler.frame(type, payload);
    });
    socket.onopen = () => {
      socket.send(JSON.stringify({ upgrade, body }));
      for (const bytes of this.#early) socket.send(bytes);
      this.#early = [];
    };
    socket.onmessage = ({ data }) => {
      try {
        if (typeof data === "string") this.#end(Problem.of(JSON.parse(data).error));
        else reader.take(new Uint8Array(data));
      } catch (e) {
        this.#end(e instanceof Problem ? e : new Problem("the daemon sent what this page cannot read"));
      }
    };
    socket.onclose = () => this.#end(new Problem("the connection broke", "", "unavailable"));
  }

  /** Sends one frame. The payload is at most 64 KiB. */
  send(type: number, payload: Uint8Array = new Uint8Array(0)): void {
    const bytes = new Uint8Array(header + payload.length);
    bytes[0] = type;
    new DataView(bytes.buffer).setUint32(4, payload.length);
    bytes.set(payload, header);
    if (this.#over) return;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(bytes);
    else this.#early.push(bytes);
  }

  /** Sends bytes of any number, and waits while too many of them are on their way. */
  async sendAll(type: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += piece) {
      this.send(type, bytes.subarray(at, at + piece));
      // The browser tells nobody when there is room again.
      while (!this.#over && this.#waiting() > full) await new Promise((done) => setTimeout(done, 10));
    }
  }

  /** Returns how many bytes have not left the browser yet. */
  #waiting(): number {
    return this.#socket?.bufferedAmount || this.#early.reduce((n, bytes) => n + bytes.length, 0);
  }

  text(type: number, text: string): void {
    const bytes = encoder.encode(text);
    for (let at = 0; at < bytes.length; at += piece) this.send(type, bytes.subarray(at, at + piece));
  }

  resize(rows: number, cols: number): void {
    this.send(Frame.size, encoder.encode(JSON.stringify({ rows, cols })));
  }

  get over(): boolean {
    return this.#over;
  }

  /** Ends the stream from this side. The handler is not told. */
  close(): void {
    this.#over = true;
    this.#socket?.close();
  }

  /** Says that the last frame was the end. */
  done(): void {
    this.#end(null);
  }

  #end(problem: Problem | null): void {
    if (this.#over) return;
    this.close();
    this.handler.end(problem);
  }
}

function problemOfFrame(payload: Uint8Array): Problem {
  try {
    return Problem.of(JSON.parse(decoder.decode(payload)));
  } catch {
    return new Problem("the guest failed without a reason");
  }
}

/** Returns the position of the data behind a stamp, and where that data ends if it has length bytes. */
export const positionOf = (stamp: Uint8Array): bigint => new DataView(stamp.buffer, stamp.byteOffset).getBigUint64(0);

export const json = <T>(payload: Uint8Array): T => JSON.parse(decoder.decode(payload)) as T;
