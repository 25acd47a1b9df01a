// Requests to the daemon. Paths, parameters, bodies and answers have the types of openapi.json.

import type { Failure } from "./nouns";
import type { paths } from "./openapi.d.ts";

/** What failed and why, and what to do. The text is the daemon's, or this file's if the daemon did not answer. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly hint = "",
    readonly code = "",
  ) {
    super(message);
  }

  static of(e: Failure): Problem {
    return new Problem(e.message, e.hint, e.code);
  }
}

/** Returns anything that was thrown as a Problem. */
export function problemOf(e: unknown): Problem {
  return e instanceof Problem ? e : new Problem(e instanceof Error ? e.message : String(e));
}

/** Reports whether e is only the end of a request that this page has cancelled. */
export function isCancelled(e: unknown): boolean {
  return e instanceof DOMException && e.name === "AbortError";
}

type Method = "get" | "post" | "put" | "patch" | "delete";
type PathsWith<M extends Method> = {
  [P in keyof paths]: paths[P] extends { [K in M]: object } ? P : never;
}[keyof paths];
type Operation<M extends Method, P extends keyof paths> = NonNullable<paths[P][M]>;
type Parameters<O, In extends string> = O extends { parameters: { [K in In]?: infer T } } ? NonNullable<T> : never;
type Body<O> = O extends { requestBody: { content: { "application/json": infer T } } } ? T : never;
type Answer<O, Type extends string> = O extends { responses: { 200: { content: { [K in Type]: infer T } } } }
  ? T
  : void;
type Given<Name extends string, T> = [T] extends [never] ? { [K in Name]?: undefined } : { [K in Name]: T };

export type Options<O> = Given<"path", Parameters<O, "path">> &
  Given<"body", Body<O>> & { query?: Partial<Parameters<O, "query">>; signal?: AbortSignal };

let bearer = "";
let onDenied = () => {};

/** Sets what each request says of this browser's session, and what is called when the session is void. */
export function authorize(token: string, denied: () => void): void {
  bearer = token;
  onDenied = denied;
}

const noAnswer = () => new Problem("the daemon does not answer", "look at it with: banger version", "unavailable");

/** Sends a request with the session of this browser, and throws a Problem for an answer that says that it failed. */
export async function send(method: string, url: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  const headers = new Headers(init.headers);
  if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
  try {
    response = await fetch(url, { ...init, method, headers });
  } catch (e) {
    throw isCancelled(e) ? e : noAnswer();
  }
  if (response.ok) return response;
  let problem = new Problem(`the daemon answers with the status ${response.status}`);
  try {
    problem = Problem.of((await response.json()).error);
  } catch {
    // The answer is not the daemon's, so there is no sentence of the daemon's to show.
  }
  // The code alone does not say it: a registry may deny something too.
  if (response.status === 401 || response.headers.has("WWW-Authenticate")) onDenied();
  throw problem;
}

interface Loose {
  path?: Record<string, unknown>;
  query?: Record<string, unknown>;
  body?: unknown;
  signal?: AbortSignal;
}

function target(template: string, o: Loose): { path: string; query: URLSearchParams } {
  const path = template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(o.path?.[name] ?? "")));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(o.query ?? {})) {
    if (value !== undefined) query.set(name, String(value));
  }
  return { path, query };
}

function request(method: string, template: string, o: Loose): Promise<Response> {
  const { path, query } = target(template, o);
  const init: RequestInit = { signal: o.signal };
  if (o.body !== undefined) {
    init.body = JSON.stringify(o.body);
    init.headers = { "Content-Type": "application/json" };
  }
  return send(method.toUpperCase(), query.size ? `${path}?${query}` : path, init);
}

/** Makes a request whose answer is one JSON value, or nothing. */
export async function call<M extends Method, P extends PathsWith<M>>(
  method: M,
  path: P,
  options: Options<Operation<M, P>>,
): Promise<Answer<Operation<M, P>, "application/json">> {
  return local(method, path, options as Loose);
}

/** Makes a request of which openapi.json knows nothing: it is answered by the UI's own process, about the user's files. */
export async function local<T>(method: Method, path: string, options: Loose = {}): Promise<T> {
  const text = await (await request(method, path, options)).text();
  return (text ? JSON.parse(text) : undefined) as T;
}

/** Returns a ticket for one request to a path, which cannot have headers. */
export async function ticket(method: string, path: string): Promise<string> {
  const response = await send("POST", "/ui/tickets", {
    body: JSON.stringify({ method, path }),
    headers: { "Content-Type": "application/json" },
  });
  return (await response.json()).ticket;
}

/**
 * Follows the answer to a GET for as long as it goes on. It comes by a WebSocket, as a browser has only six connections
 * to one host for ordinary answers, and all its tabs share them. opened is called when the daemon has accepted the
 * request.
 */
async function follow(template: string, o: Loose, opened: () => void): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const { path, query } = target(template, o);
  query.set("ticket", await ticket("GET", decodeURIComponent(path)));
  o.signal?.throwIfAborted();
  const socket = new WebSocket(`ws://${location.host}${path}?${query}`);
  socket.binaryType = "arraybuffer";
  return new ReadableStream({
    start(stream) {
      const fail = (e: unknown) => {
        socket.onmessage = socket.onclose = null;
        socket.close();
        stream.error(e);
      };
      o.signal?.addEventListener("abort", () => fail(o.signal?.reason));
      socket.onopen = () => socket.send("{}");
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") return stream.enqueue(new Uint8Array(data));
        const { error } = JSON.parse(data);
        if (error) fail(Problem.of(error));
        else opened();
      };
      socket.onclose = ({ code }) => (code === 1000 ? stream.close() : stream.error(noAnswer()));
    },
    cancel: () => socket.close(),
  });
}

/**
 * Follows an answer of lines of JSON, and calls each with the value of a line. opened is called when the daemon has
 * accepted the request, which may be long before the first line.
 */
export async function stream<P extends PathsWith<"get">>(
  path: P,
  options: Options<Operation<"get", P>>,
  each: (value: Answer<Operation<"get", P>, "application/x-ndjson">) => void,
  opened: () => void = () => {},
): Promise<void> {
  await readLines(await follow(path, options as Loose, opened), (line) => each(JSON.parse(line)));
}

/** Follows an answer of lines of text, and calls each with every line. */
export async function lines<P extends PathsWith<"get">>(
  path: P,
  options: Options<Operation<"get", P>>,
  each: (line: string) => void,
  opened: () => void,
): Promise<void> {
  await readLines(await follow(path, options as Loose, opened), each);
}

/** Makes a long request, calls each with its events, and returns the last one, which has the result. */
export async function perform<M extends Method, P extends PathsWith<M>>(
  method: M,
  path: P,
  options: Options<Operation<M, P>>,
  each: (event: Answer<Operation<M, P>, "application/x-ndjson">) => void,
): Promise<Answer<Operation<M, P>, "application/x-ndjson">> {
  let last: Answer<Operation<M, P>, "application/x-ndjson"> | undefined;
  const { body } = await request(method, path, options as Loose);
  if (!body) throw noAnswer();
  await readLines(body, (line) => {
    const event = JSON.parse(line);
    const failed = event.error as Failure | undefined;
    if (failed) throw Problem.of(failed);
    last = event;
    each(event);
  });
  if (last === undefined) throw noAnswer();
  return last;
}

const maxLine = 64 << 20; // characters; the state of all VMs is one line
const turn = 12; // milliseconds of work, after which the browser gets a turn

/** Calls each with every line of a text. It gives the browser a turn now and then, whatever is waiting. */
async function readLines(
  bytes: ReadableStream<Uint8Array<ArrayBuffer>>,
  each: (line: string) => void,
): Promise<void> {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let begun = performance.now();
    const parts: string[] = []; // of a line that is not whole yet
    let waiting = 0;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      let from = 0;
      for (let to = value.indexOf("\n"); to >= 0; to = value.indexOf("\n", from)) {
        parts.push(value.slice(from, to));
        from = to + 1;
        const line = parts.join("");
        parts.length = waiting = 0;
        if (line) each(line);
        if (performance.now() - begun > turn) {
          await new Promise((done) => setTimeout(done));
          begun = performance.now();
        }
      }
      parts.push(value.slice(from));
      waiting += value.length - from;
      if (waiting > maxLine) throw new Problem("the daemon sent a line that is too long");
    }
    const line = parts.join("");
    if (line) each(line);
  } catch (e) {
    if (e instanceof Problem || isCancelled(e)) throw e;
    throw e instanceof SyntaxError ? new Problem("the daemon sent a line that is not JSON") : noAnswer();
  } finally {
    reader.cancel().catch(() => {}); // the stream has ended, or nobody reads it any more
  }
}

const pauseBetween = 2000; // milliseconds before a stream that broke is asked for again

/** Does something again and again until the signal is given, or until it returns "over". failed is told what went wrong,
 * and says whether to go on. */
export async function again(
  signal: AbortSignal,
  work: () => Promise<void | "over">,
  failed: (problem: Problem) => boolean,
): Promise<void> {
  while (!signal.aborted) {
    try {
      if ((await work()) === "over") return;
    } catch (e) {
      if (isCancelled(e) || signal.aborted || !failed(problemOf(e))) return;
    }
    if (!signal.aborted) await new Promise((done) => setTimeout(done, pauseBetween));
  }
}
