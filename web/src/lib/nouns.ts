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

/** What a copy has moved. The document has no schema for it, as it comes in a frame. */
export interface CopyReport {
  entries: number;
  bytes: number;
}

/** A browser that has a session. It is the web UI's own, and in no document. */
export interface Browser {
  id: string;
  browser: string;
  created: string;
  used: string;
}
