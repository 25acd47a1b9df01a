// The parts of the system view. Each is a file of its own.

import type { Component } from "svelte";

export interface Tab {
  /** The last part of the address; "" is the first tab. */
  id: string;
  label: string;
  load: () => Promise<{ default: Component }>;
}

export const tabs: Tab[] = [
  { id: "", label: "This host", load: () => import("./Host.svelte") },
  { id: "events", label: "Events", load: () => import("./Events.svelte") },
  { id: "log", label: "Log", load: () => import("./Log.svelte") },
  { id: "browsers", label: "Browsers", load: () => import("./Browsers.svelte") },
  { id: "isolation", label: "Isolation", load: () => import("./Isolation.svelte") },
];
