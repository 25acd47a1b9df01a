// The columns of the list of machines: what each is sorted by, and which machines a filter finds.

import * as format from "./format";
import { metrics } from "./metrics.svelte";
import type { VM } from "./nouns";

export interface Column {
  id: string;
  label: string;
  width: number;
  /** What machines are sorted by. */
  by: (vm: VM) => string | number;
}

const dueAt = (vm: VM): number => {
  const next = vm.due?.[0];
  if (!next) return Infinity;
  return next.at ? Date.parse(next.at) : Number.MAX_SAFE_INTEGER;
};

export const columns: Column[] = [
  { id: "name", label: "Name", width: 144, by: (vm) => vm.name },
  { id: "state", label: "State", width: 156, by: (vm) => vm.state },
  { id: "cpu", label: "CPU", width: 154, by: (vm) => metrics.now(vm.id, "cpu") ?? -1 },
  { id: "memory", label: "Memory", width: 180, by: (vm) => metrics.now(vm.id, "memory") ?? -1 },
  { id: "image", label: "Image", width: 146, by: (vm) => vm.spec.image },
  { id: "isolation", label: "Isolation", width: 132, by: (vm) => vm.isolation },
  { id: "size", label: "CPUs / memory", width: 116, by: (vm) => vm.spec.memory ?? 0 },
  { id: "ports", label: "Ports", width: 108, by: (vm) => format.forwards(vm)[0]?.host_port ?? 0 },
  { id: "ready", label: "Ready", width: 74, by: (vm) => format.readiness(vm.readiness) },
  { id: "due", label: "Next", width: 124, by: dueAt },
  { id: "labels", label: "Labels", width: 94, by: (vm) => format.labels(vm).join(" ") },
  { id: "created", label: "Created", width: 94, by: (vm) => -Date.parse(vm.created_at) },
];

const texts = new WeakMap<VM, string>(); // a VM that has changed is another object

function textOf(vm: VM): string {
  let text = texts.get(vm);
  if (text === undefined) {
    text = [vm.name, vm.spec.image, vm.state, ...format.labels(vm)].join("\n").toLowerCase();
    texts.set(vm, text);
  }
  return text;
}

/** Returns the machines in which every word of a filter is found. */
export function filtered(list: readonly VM[], filter: string): readonly VM[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length ? list.filter((vm) => words.every((word) => textOf(vm).includes(word))) : list;
}

/** Returns the machines in the order of a column; "-" before its id turns that round. "" leaves the newest first. */
export function sorted(list: readonly VM[], order: string): readonly VM[] {
  const column = columns.find((c) => c.id === order.replace(/^-/, ""));
  if (!column) return list;
  const sign = order.startsWith("-") ? -1 : 1;
  const keyed = list.map((vm) => ({ vm, key: column.by(vm) }));
  keyed.sort((a, b) => sign * (a.key < b.key ? -1 : a.key > b.key ? 1 : a.vm.name < b.vm.name ? -sign : sign));
  return keyed.map((k) => k.vm);
}
