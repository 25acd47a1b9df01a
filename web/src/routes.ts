// All views. Each is a file of its own, which is loaded when it is shown for the first time.

import type { Route } from "./lib/router.svelte";

export const routes: Route[] = [
  { path: "/", load: () => import("./views/Machines.svelte"), nav: { label: "Machines", icon: "machines" } },
  { path: "/vms/{name}/{tab?}", load: () => import("./views/Machine.svelte") },
];
