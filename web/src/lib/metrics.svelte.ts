// What machines use of their host, as the daemon's stream tells it: the last hour in steps of ten seconds and, for a view
// that wants it, the last day in steps of five minutes. The stream is read only while such a view is in sight. All views
// share one request, because a browser has few connections.

import { problemOf, stream } from "./api";
import type { Metrics as Line, Use } from "./nouns";
import { session } from "./session.svelte";

export type Kind = keyof Use;
export type Values = (number | null)[];

interface History {
  hour: Use;
  day: Use;
}

/** What a view shows: all machines, or the one with an id; and whether it shows the last day. */
interface Want {
  vm?: string;
  day?: boolean;
}

const allKinds: Kind[] = ["cpu", "memory", "net_in", "net_out", "disk_read", "disk_written"];
const listKinds: Kind[] = ["cpu", "memory"]; // of all machines together, only what their list shows is kept
export const stepSeconds = 10;
export const hourSteps = 360;
const blockSteps = 30; // steps that are one value of the day
export const dayBlocks = 288;
const pause = 2000; // milliseconds before a stream that broke is asked for again

const nothing = (): Use => ({ cpu: [], memory: [], net_in: [], net_out: [], disk_read: [], disk_written: [] });
const blockOf = (step: number): number => Math.floor(step / blockSteps);

function push(list: Values, gaps: number, value: number | null, most: number): void {
  for (let i = Math.min(gaps, most); i > 0; i--) list.push(null);
  list.push(value);
  while (list.length > most) list.shift();
}

class Metrics {
  /** Grows with each round of samples. What reads values is shown anew then. */
  #round = $state(0);
  /** The daemon has told the whole state. */
  known = $state(false);

  #all = new Map<string, History>();
  #next: Map<string, History> | null = null; // the whole state, while it comes
  #kinds = allKinds;
  #step = 0;
  #at = 0;
  #cursor = "";

  #wants = new Set<Want>();
  #query = ""; // of the stream that is read, or was read last
  #end: AbortController | null = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#plan());
  }

  /** Reads the stream for a view until the returned function is called. It is made for $effect. */
  watch(want: Want): () => void {
    this.#wants.add(want);
    this.#plan();
    return () => {
      this.#wants.delete(want);
      this.#plan();
    };
  }

  /** Returns the values of the last hour. The last one is that of the latest step, and earlier ones may be missing. */
  hour(id: string): Use | undefined {
    void this.#round;
    return this.#all.get(id)?.hour;
  }

  /** Returns the means of the last day, without the five minutes that are not over. */
  day(id: string): Use | undefined {
    void this.#round;
    return this.#all.get(id)?.day;
  }

  /** Returns the latest value of a kind. */
  now(id: string, kind: Kind): number | null {
    return this.hour(id)?.[kind].at(-1) ?? null;
  }

  get step(): number {
    void this.#round;
    return this.#step;
  }

  /** Returns the seconds since 1970 for values of the last hour or day of which the last is at the end. */
  times(span: "hour" | "day", n: number): number[] {
    void this.#round;
    const each = span === "hour" ? stepSeconds : stepSeconds * blockSteps;
    const last = this.#at / 1000 - (span === "hour" ? 0 : ((this.#step % blockSteps) + blockSteps / 2) * stepSeconds);
    return Array.from({ length: n }, (_, i) => last - (n - 1 - i) * each);
  }

  /** Looks in a moment whether there has to be another stream. A view that goes often makes room for one that comes. */
  #plan(): void {
    setTimeout(() => {
      const wants = [...this.#wants];
      if (!wants.length || document.hidden) {
        this.#stop();
        return;
      }
      const vm = wants.every((w) => w.vm === wants[0]!.vm) ? wants[0]!.vm : undefined;
      const query = { vm, day: wants.some((w) => w.day) || undefined };
      const text = JSON.stringify(query);
      if (this.#end && text === this.#query) return;
      this.#stop();
      if (text !== this.#query) {
        this.#cursor = ""; // the histories of other machines are not known
        this.known = false;
      }
      this.#query = text;
      this.#kinds = vm ? allKinds : listKinds;
      this.#end = new AbortController();
      void this.#follow(query, this.#end.signal);
    });
  }

  #stop(): void {
    this.#end?.abort();
    this.#end = null;
  }

  async #follow(query: { vm?: string; day?: true }, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && session.state === "open") {
      try {
        const since = this.#cursor || undefined;
        await stream("/v1/metrics", { query: { ...query, since }, signal }, (line) => {
          if (!signal.aborted) this.#take(line);
        });
      } catch (e) {
        const { code } = problemOf(e);
        if (code === "invalid") this.#cursor = "";
        if (code === "not_found") return; // the machine is gone
      }
      if (!signal.aborted) await new Promise((done) => setTimeout(done, pause));
    }
  }

  #take(line: Line): void {
    if (line.state) {
      this.#next = new Map();
    } else if (line.vm) {
      const { hour, day } = line;
      const history = { hour: nothing(), day: nothing() };
      for (const kind of this.#kinds) {
        if (hour) history.hour[kind] = hour[kind];
        if (day) history.day[kind] = day[kind];
      }
      this.#next?.set(line.vm, history);
    } else if (this.#next) {
      this.#all = this.#next;
      this.#next = null;
      this.#tell(line);
    } else {
      this.#add(line);
      this.#tell(line);
    }
  }

  #tell(line: Line): void {
    this.#cursor = line.cursor ?? "";
    this.#step = line.step ?? 0;
    this.#at = line.at ? Date.parse(line.at) : Date.now();
    // What is shown changes in a task of its own, so that neither becomes long.
    setTimeout(() => {
      this.known = this.#cursor !== "";
      this.#round++;
    });
  }

  /** Adds a round to the histories. Steps since the last one that are missing are gaps. */
  #add(line: Line): void {
    const step = line.step ?? 0;
    const places = new Map((line.vms ?? []).map((id, i) => [id, i]));
    const dayPlaces = new Map((line.day_vms ?? []).map((id, i) => [id, i]));
    const blocks = blockOf(step) - blockOf(this.#step);
    for (const id of places.keys()) {
      if (!this.#all.has(id)) this.#all.set(id, { hour: nothing(), day: nothing() });
    }
    for (const id of line.removed ?? []) this.#all.delete(id);
    for (const [id, history] of this.#all) {
      const i = places.get(id);
      const k = dayPlaces.get(id);
      for (const kind of this.#kinds) {
        const { [kind]: hour } = history.hour;
        const value = i === undefined ? null : (line.now?.[kind][i] ?? null);
        push(hour, hour.length ? step - this.#step - 1 : 0, value, hourSteps);
        if (blocks > 0) {
          push(history.day[kind], 0, k === undefined ? null : (line.day_now?.[kind][k] ?? null), dayBlocks);
          if (blocks > 1) push(history.day[kind], blocks - 2, null, dayBlocks);
        }
      }
    }
  }
}

export const metrics = new Metrics();
