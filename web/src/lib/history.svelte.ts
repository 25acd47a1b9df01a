// What has happened to machines since the page was opened, as the daemon's stream of changes tells it.

import type { Change, VM } from "./nouns";

const kept = 1000; // lines

export interface Line {
  id: number;
  /** When this page heard of it, in milliseconds since 1970. */
  at: number;
  /** The machine's name; "" if it is about all of them. */
  name: string;
  text: string;
}

class History {
  /** The newest first. */
  list = $state.raw<Line[]>([]);

  #new: Line[] = [];
  #last = 0;

  /** Takes a change, and the machine as it was before. show makes it visible. */
  note(change: Change, before: VM | undefined): void {
    const add = (name: string, text: string) => this.#new.push({ id: ++this.#last, at: Date.now(), name, text });
    if (change.state) add("", `all machines are known: ${change.vms?.length ?? 0}`);
    if (change.removed) add(before?.name ?? change.removed, "is gone");
    if (change.vm) add(change.vm.name, before ? difference(before, change.vm) : `is new: ${change.vm.state}`);
  }

  show(): void {
    this.list = [...this.#new.reverse(), ...this.list].slice(0, kept);
    this.#new = [];
  }
}

/** Says in a few words what has changed of a machine. */
function difference(before: VM, after: VM): string {
  const said = [];
  const fields = new Set([...Object.keys(before), ...Object.keys(after)] as (keyof VM)[]);
  const changed = [...fields].filter((f) => JSON.stringify(before[f]) !== JSON.stringify(after[f]));
  if (before.state !== after.state) said.push(after.reason ? `${after.state}: ${after.reason}` : after.state);
  if (before.name !== after.name) said.push(`was called ${before.name}`);
  const others = changed.filter((f) => !["state", "reason", "name"].includes(f)).map((f) => f.replaceAll("_", " "));
  if (others.length) said.push(said.length ? `(${others.join(", ")})` : `changed: ${others.join(", ")}`);
  return said.join(" ") || "is as it was";
}

export const history = new History();
