// Values as the command line prints them: sizes, times, states and ports.

import type { Due, Forward, Policy, Readiness, RestartPolicy, Rule, Timer, VM } from "./nouns";

/** Returns a number of bytes, such as 512 MiB. */
export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  for (; bytes >= 1024 && i < units.length - 1; i++) bytes /= 1024;
  return `${bytes.toFixed(1).replace(/\.0$/, "")} ${units[i]}`;
}

/** Returns a share, such as 12 %. */
export const share = (value: number): string => `${(value * 100).toFixed(value < 0.0995 ? 1 : 0)} %`;

/** Returns how long a number of seconds is. */
export function span(seconds: number): string {
  const s = Math.max(seconds, 0);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

/** Returns a number of milliseconds with the precision that a start needs. */
export const millis = (ms: number): string => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(2)} s`);

/** Returns the time from a moment of the daemon's to now, in seconds. */
export const since = (time: string, now: number): number => (now - Date.parse(time)) / 1000;

/** Returns how long ago a time was. */
export const age = (time: string, now: number): string => `${span(since(time, now))} ago`;

const dated = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Returns a time with its date, as this browser writes them. */
export const moment = (time: string): string => dated.format(Date.parse(time));

/** Returns what a ready probe has seen, or "" without one. */
export function readiness(r: Readiness | undefined): string {
  if (!r) return "";
  if (r.ready) return "ready";
  return r.reason ? `not ready: ${r.reason}` : "starting";
}

/** Returns the state of a VM, and how long it has been in it. */
export function state(vm: VM, now: number): string {
  if (vm.state === "running" && vm.started_at) {
    const n = vm.restarts ?? 0;
    return `running, ${span(since(vm.started_at, now))}${n ? `, ${n} restart${n === 1 ? "" : "s"}` : ""}`;
  }
  if (vm.state === "stopped" && vm.exit_code !== undefined) {
    return `stopped (${vm.exit_code})${vm.finished_at ? `, ${age(vm.finished_at, now)}` : ""}`;
  }
  if (vm.state === "failed" && vm.reason) return `failed: ${vm.reason}`;
  return vm.state;
}

const dueWords: Record<string, string> = {
  start: "starts again",
  stop: "stopped",
  suspend: "suspended",
  rm: "removed",
};
const idleWords: Record<string, string> = { stop: "stops", suspend: "suspends" };

/** Returns one thing that the daemon will do with a VM by itself. */
export function due(d: Due, now: number): string {
  const word = dueWords[d.action] ?? d.action;
  if (d.blocked) return `not ${word}: ${d.blocked}`;
  if (d.idle) return `${idleWords[d.action] ?? d.action} when idle for ${span(d.idle)}`;
  return `${word} in ${span(d.at ? -since(d.at, now) : 0)}`;
}

/** Returns the CPUs of a VM, with the bound of what all commands use together. */
export const cpus = (n: number, thousandths?: number): string => String(thousandths ? thousandths / 1000 : n);

/** Returns how many CPUs and how much memory a VM has. */
export const shape = (vm: VM): string =>
  `${cpus(vm.spec.cpus ?? 1, vm.spec.confine?.cpu)} / ${size(vm.spec.memory ?? 0)}`;

/** The sentence about a VM whose isolation is not that of hardware virtualization. */
export const emulated =
  "This machine is emulated in software. That is slow, and is not the isolation of hardware virtualization.";

const bracketed = (ip: string): string => (ip.includes(":") ? `[${ip}]` : ip);

/** Returns a forward as docker's ps shows it. */
export const forward = (f: Forward): string =>
  `${bracketed(f.host_ip ?? "127.0.0.1")}:${f.host_port ?? 0}->${f.guest_port}/${f.protocol ?? "tcp"}`;

/** Returns where a browser on this host reaches a forward, or "" if it cannot. */
export function forwardURL(f: Forward): string {
  if ((f.protocol ?? "tcp") !== "tcp" || !f.host_port) return "";
  const ip = f.host_ip ?? "127.0.0.1";
  const any = ip === "0.0.0.0" || ip === "::";
  if (!any && !/^[0-9a-f.:]+$/.test(ip)) return "";
  return `http://${any ? "127.0.0.1" : bracketed(ip)}:${Number(f.host_port)}`;
}

/** Returns the forwards of a VM: those in force, or else those that it will have. */
export const forwards = (vm: VM): Forward[] => vm.forwards ?? vm.spec.forwards ?? [];

/** Returns the labels of a VM, in order. */
export const labels = (vm: VM): string[] =>
  Object.entries(vm.spec.labels ?? {})
    .map(([key, value]) => (value ? `${key}=${value}` : key))
    .sort();

/** Returns a command as a shell reads it. */
export const command = (args: readonly string[]): string =>
  args.map((a) => (/^[\w@%+=:,./-]+$/.test(a) ? a : `'${a.replaceAll("'", `'\\''`)}'`)).join(" ");

/** Returns seconds as a person writes them for a timer: 90s, 15m or 8h. */
function duration(seconds: number): string {
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** Returns a timer as a person writes it, or "". */
export const timer = (t: Timer | undefined): string => (t?.seconds ? `${duration(t.seconds)}=${t.action}` : "");

/** Returns a restart policy as a person writes it. */
export const restart = (p: RestartPolicy | undefined): string => (p?.name ?? "") + (p?.max ? `:${p.max}` : "");

/** Returns one rule of a policy as a person writes it. */
export function rule(r: Rule): string {
  const ports = r.ports?.length ? `:${r.ports.join(",")}` : "";
  return [r.action, r.to, r.protocol ? r.protocol + ports : ""].filter(Boolean).join(" ");
}

/** Returns the lines of a policy. */
export const policy = (p: Policy): string[] => [...(p.rules ?? []).map(rule), `default ${p.default}`];

/** Returns the part of a digest that a person needs, as the command line shows it. */
export const digest = (digest: string): string => digest.replace(/^sha256:/, "").slice(0, 12);
