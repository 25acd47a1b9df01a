// Which view the address names, by the History API. Filters and orders of lists are in the query.

import type { Component } from "svelte";
import type { IconName } from "../components/icons";

export interface Route {
  /** A path in which {name} stands for one part, and {name?} for one that may be absent. */
  path: string;
  load: () => Promise<{ default: Component<any> }>; // its props are the parts of the path that have names
  /** How the rail and the palette show the view. Views without it are reached from others. */
  nav?: { label: string; icon: IconName };
}

/** Returns the path of a view whose last parts may be absent. */
export const base = (form: string): string => form.replace(/\/\{.*/, "");

/** Returns what the parts of a path are called, if it fits the form of a route. */
export function match(form: string, path: string): Record<string, string> | null {
  const want = form.split("/").slice(1);
  const got = path.split("/").slice(1);
  if (got.length > want.length) return null;
  const params: Record<string, string> = {};
  for (const [i, part] of want.entries()) {
    const value = got[i] ?? "";
    const name = /^\{(\w+)(\??)\}$/.exec(part);
    if (!name) {
      if (value !== part) return null;
    } else if (value) {
      try {
        params[name[1]!] = decodeURIComponent(value);
      } catch {
        return null;
      }
    } else if (!name[2]) return null;
  }
  return params;
}

class Router {
  path = $state(location.pathname);
  query = $state.raw(new URLSearchParams(location.search));

  constructor() {
    addEventListener("popstate", () => this.#read());
    document.addEventListener("click", (e) => this.#click(e));
  }

  /** Shows the view of a path. */
  go(to: string): void {
    if (to === location.pathname + location.search) return;
    history.pushState(null, "", to);
    this.#read();
  }

  /** Shows the view of a path as if the present one had not been there. */
  replace(to: string): void {
    history.replaceState(null, "", to);
    this.#read();
  }

  /** Returns a value of the query with the escapes that it has in the address, or "". It may mean bytes that are no text. */
  escaped(name: string): string {
    void this.query;
    return new RegExp(`[?&]${name}=([^&]*)`).exec(location.search)?.[1] ?? "";
  }

  /** Changes values of the query; "" takes one away. Going back does not pass by the earlier values. */
  ask(values: Record<string, string>): void {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    this.replace(query.size ? `${location.pathname}?${query}` : location.pathname);
  }

  #read(): void {
    this.path = location.pathname;
    if (this.query.toString() !== new URLSearchParams(location.search).toString()) {
      this.query = new URLSearchParams(location.search);
    }
  }

  #click(e: MouseEvent): void {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const a = e.target instanceof Element ? e.target.closest("a") : null;
    if (!a || a.target || a.hasAttribute("download") || a.hash || a.origin !== location.origin) return;
    e.preventDefault();
    this.go(a.pathname + a.search);
  }
}

export const router = new Router();

export const machinePath = (name: string, tab = ""): string =>
  `/vms/${encodeURIComponent(name)}${tab ? `/${encodeURIComponent(tab)}` : ""}`;

const imageTabs = ["kernels", "templates"]; // an image may have such a name

/** Returns where an image is shown, by a name of it if it has one. */
export const imagePath = (digest: string, reference = ""): string =>
  `/images/${encodeURIComponent(reference && !imageTabs.includes(reference) ? reference : digest)}`;
