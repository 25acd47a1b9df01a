// The nouns of the API, under the names that they have in the daemon.

import type { components } from "./openapi.d.ts";

type Schemas = components["schemas"];

export type VM = Schemas["VM"];
export type Forward = Schemas["Forward"];
export type Due = Schemas["Due"];
export type Readiness = Schemas["Readiness"];
export type Probe = Schemas["Probe"];
export type Policy = Schemas["Policy"];
export type Rule = Schemas["Rule"];
export type Timer = Schemas["Timer"];
export type RestartPolicy = Schemas["RestartPolicy"];
export type CreateRequest = Schemas["CreateRequest"];
export type Update = Schemas["Update"];
export type Image = Schemas["Image"];
export type ImageUsage = Schemas["ImageUsage"];
export type ImageStep = Schemas["ImageStep"];
export type Pruned = Schemas["Pruned"];
export type Kernel = Schemas["Kernel"];
export type Template = Schemas["Template"];
export type Usage = Schemas["Usage"];
export type Snapshot = Schemas["Snapshot"];
export type Session = Schemas["Session"];
export type SessionChange = Schemas["SessionChange"];
export type Listener = Schemas["Listener"];
export type Metrics = Schemas["Metrics"];
export type Use = Schemas["Use"];
export type Change = Schemas["Change"];
export type Event = Schemas["Event"];
export type Failure = Schemas["Error"];
export type Fork = Schemas["Fork"];
export type Decision = Schemas["Decision"];
export type FileInfo = Schemas["FileInfo"];
export type FileChange = Schemas["FileChange"];
export type Compared = Schemas["Compared"];

/** What a copy has moved. The document has no schema for it, as it comes in a frame. */
export interface CopyReport {
  entries: number;
  bytes: number;
}

/** What the user's config.toml says about new machines, in the words of the flags of run; "" where it says nothing. */
export interface Presets {
  cpus: string;
  memory: string;
  disk: string;
  network: string;
  warm: string;
  idle: string;
  policy: string;
}

/** What a rule changes in a project's file. */
export interface AllowedForProject {
  file: string;
  changes: string; // a unified diff
  notes?: string[];
}

/** A browser that has a session. It is the web UI's own, and in no document. */
export interface Browser {
  id: string;
  browser: string;
  created: string;
  used: string;
}

// What the UI's own process says of workspaces (internal/local). Paths are bytes, in base64.

export interface Workspace {
  name: string;
  path: string;
  source: string;
  known: boolean; // this host has a record of it
  plain: boolean; // of a directory without a repository
  error?: string;
}

/** One file that differs. */
export interface Changed {
  status: string; // as git names it: A, D, M, T, or R and C with the similarity
  path: string;
  from?: string;
  before?: string; // the mode, as git has it
  after?: string;
  added: number; // lines
  removed: number;
  binary?: boolean;
}

/** A file that a tool of this host may obey, or one that cannot be merged. */
export interface Remark {
  path: string;
  why: string;
}

/** A workspace as it was seen. What is taken of it is what was seen. */
export interface Seen {
  id: string;
  source: string;
  path: string;
  plain: boolean;
  changes: Changed[]; // those that tools may obey come first, and at most 20,000
  total: number;
  commits: number;
  branch: string;
  hazards: Remark[];
  notes: string[];
  host: { changes: Changed[]; branch: string; moved: boolean };
}

export interface Side {
  kind: "text" | "binary" | "large" | "link";
  size: number;
  data?: string;
}

export interface ChangedFile extends Changed {
  old?: Side;
  new?: Side;
}

export interface Exported {
  branch: string;
  commits: number;
  remaining: boolean; // one more commit has what was not committed
  modules?: string[];
}

/** What a pull does to the host, or what has come into the machine. */
export interface Moved {
  changes: Changed[];
  conflicts: Remark[];
  hazards?: Remark[];
  notes?: string[];
}
