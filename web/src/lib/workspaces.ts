// Workspaces of a machine, as this host's process of the UI tells and takes them.

import { local } from "./api";
import { named, type Path, textOf } from "./files";
import type { Changed, ChangedFile, Exported, Moved, Remark, Seen, Workspace } from "./nouns";

const base = "/ui/local/workspaces/{vm}";
const one = `${base}/{name}`;
const capture = `${one}/captures/{id}`;

export const list = (vm: string, signal?: AbortSignal): Promise<Workspace[]> =>
  local("get", base, { path: { vm }, signal });

/** Looks at a workspace. What is exported or pulled is what was seen, until it is looked at again. */
export const look = (vm: string, name: string, signal: AbortSignal): Promise<Seen> =>
  local("post", `${one}/captures`, { path: { vm, name }, signal });

export const sync = (vm: string, name: string): Promise<Moved> => local("post", `${one}/sync`, { path: { vm, name } });

export const reset = (vm: string, name: string): Promise<{ in_old: number }> =>
  local("post", `${one}/reset`, { path: { vm, name } });

/** What was seen of a workspace. */
export class Capture {
  readonly #path: { vm: string; name: string; id: string };

  constructor(vm: string, name: string, id: string) {
    this.#path = { vm, name, id };
  }

  /** Looks at this host's side again. */
  now = (): Promise<Seen> => local("get", capture, { path: this.#path });

  file = (path: Path, signal: AbortSignal): Promise<ChangedFile> =>
    local("get", `${capture}/file?path=${path}`, { path: this.#path, signal });

  export = (branch: string, force: boolean): Promise<Exported> =>
    local("post", `${capture}/export`, { path: this.#path, body: { branch, force } });

  /** Says what a pull would change. */
  wouldPull = (signal?: AbortSignal): Promise<Moved> =>
    local("post", `${capture}/pull`, { path: this.#path, body: { dry_run: true }, signal });

  /** looked are files that tools may obey, and that the user has looked at. */
  pull = (looked: Remark[]): Promise<Moved> =>
    local("post", `${capture}/pull`, { path: this.#path, body: { looked: looked.map((h) => h.path) } });

  /** Lets the process forget it. */
  drop = (): Promise<void> => local("delete", capture, { path: this.#path });
}

export const pathOf = (c: Changed | Remark): string => textOf(named(c.path));

const words: Record<string, string> = {
  A: "new",
  D: "removed",
  M: "changed",
  T: "of another kind",
  R: "renamed",
  C: "copied",
};

/** Returns what has happened to a file, in a word. */
export const wordOf = (c: Changed): string => words[c.status[0] ?? ""] ?? c.status;

/** Returns how many files there are, with a word for them. */
export const count = (n: number, one: string, more = `${one}s`): string =>
  `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

/** Says in a sentence what has changed on both sides. */
export function summary(seen: Seen): string {
  const side = (n: number) => (n ? `${count(n, "file")} changed` : "nothing changed");
  let text = `In the machine ${side(seen.total)}`;
  if (seen.commits) text += `, with ${count(seen.commits, "new commit")} on ${seen.branch || "no branch"}`;
  text += `. On this host ${side(seen.host.changes.length)}`;
  return `${text}${seen.host.moved ? ", and HEAD is another commit now" : ""}.`;
}
