// All views. Each is a file of its own, which is loaded when it is shown for the first time.

import type { Route } from "./lib/router.svelte";

export const routes: Route[] = [
  { path: "/", load: () => import("./views/Machines.svelte"), nav: { label: "Machines", icon: "machines" } },
  { path: "/vms/{name}/{tab?}", load: () => import("./views/Machine.svelte") },
  { path: "/images", load: () => import("./views/Images.svelte"), nav: { label: "Images", icon: "images" } },
  { path: "/images/kernels", load: () => import("./views/Kernels.svelte") },
  { path: "/images/templates", load: () => import("./views/Templates.svelte") },
  { path: "/images/{reference}", load: () => import("./views/Image.svelte") },
  {
    path: "/system/{tab?}",
    load: () => import("./views/System.svelte"),
    nav: { label: "System", icon: "system" },
  },
];
