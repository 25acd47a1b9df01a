// The tabs of a machine. Each is a file of its own, which gets the machine.

import type { Component } from "svelte";
import type { VM } from "../../lib/nouns";

export interface Tab {
  /** The last part of the address; "" is the first tab. */
  id: string;
  label: string;
  load: () => Promise<{ default: Component<{ vm: VM }> }>;
}

export const tabs: Tab[] = [
  { id: "", label: "Overview", load: () => import("./Overview.svelte") },
  { id: "usage", label: "Usage", load: () => import("./Usage.svelte") },
  { id: "terminal", label: "Terminal", load: () => import("./Terminal.svelte") },
  { id: "files", label: "Files", load: () => import("./Files.svelte") },
  { id: "workspaces", label: "Workspaces", load: () => import("./Workspaces.svelte") },
  { id: "network", label: "Network", load: () => import("./Network.svelte") },
  { id: "snapshots", label: "Snapshots", load: () => import("./Snapshots.svelte") },
  { id: "sessions", label: "Sessions", load: () => import("./Sessions.svelte") },
];
