// Which machine of a list the keys are about, and which ones are selected. Both follow their machines by id.

import type { VM } from "./nouns";

export class Selection {
  ids = $state.raw<ReadonlySet<string>>(new Set());
  #activeID = $state("");
  #anchor = ""; // where a range begins
  #shown: () => readonly VM[];

  constructor(shown: () => readonly VM[]) {
    this.#shown = shown;
  }

  /** Those of the selected machines that are shown. What a filter hides is not changed by accident. */
  chosen = $derived.by(() => (this.ids.size ? this.#shown().filter((vm) => this.ids.has(vm.id)) : []));
  active = $derived.by(() => this.#shown().find((vm) => vm.id === this.#activeID));

  get count(): number {
    return this.chosen.length;
  }

  /** Makes another machine the active one, and returns its index. */
  move(by: number): number {
    const list = this.#shown();
    const at = list.findIndex((vm) => vm.id === this.#activeID);
    const to = at < 0 && by > 0 && by < Infinity ? 0 : Math.max(0, Math.min(at + by, list.length - 1));
    this.#activeID = list[to]?.id ?? "";
    return to;
  }

  activate(vm: VM): void {
    this.#activeID = vm.id;
  }

  /** Selects a machine, or takes it out; the active one, if none is given. With range, all from the last one on. */
  toggle(vm: VM | undefined = this.active, range = false): void {
    if (!vm) return;
    const ids = new Set(this.ids);
    const list = this.#shown();
    const from = range ? list.findIndex((v) => v.id === this.#anchor) : -1;
    if (from >= 0) {
      const to = list.findIndex((v) => v.id === vm.id);
      for (const v of list.slice(Math.min(from, to), Math.max(from, to) + 1)) ids.add(v.id);
    } else if (!ids.delete(vm.id)) ids.add(vm.id);
    this.#anchor = vm.id;
    this.#activeID = vm.id;
    this.ids = ids;
  }

  all(): void {
    this.ids = new Set(this.#shown().map((vm) => vm.id));
  }

  none(): void {
    this.ids = new Set();
  }
}
