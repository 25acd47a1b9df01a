// What a person writes for a field of a form becomes the value that the API takes. The notation is that of the
// command line's flags. Only the form is looked at here: which values are allowed is for the daemon to say.

import { Problem } from "./api";
import type { CreateRequest, Forward, Policy, RestartPolicy, Rule, Timer } from "./nouns";

/** Returns the lines of a text that have something in them. */
export const lines = (text: string): string[] =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

function cut(text: string, at: string): [string, string | undefined] {
  const i = text.indexOf(at);
  return i < 0 ? [text, undefined] : [text.slice(0, i), text.slice(i + at.length)];
}

/** Reads a whole number. */
export function whole(text: string, what: string): number {
  if (!/^-?\d{1,15}$/.test(text.trim())) throw new Problem(`${what} is "${text}", which is not a whole number`);
  return Number(text);
}

/** Reads a size such as 512m, 1.5g or a number of bytes. */
export function size(text: string): number {
  const m = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (!m) throw new Problem(`"${text}" is not a size`, "write 512m, 1.5g or a number of bytes");
  return Math.floor(Number(m[1]) * 1024 ** " kmgt".indexOf(m[2]!.toLowerCase() || " "));
}

/** Reads a number of CPUs. A fraction bounds what all commands use together, in thousandths of a CPU. */
export function cpus(text: string): { cpus: number; cpu?: number } {
  const n = Number(text);
  if (!text.trim() || !Number.isFinite(n)) throw new Problem(`cpus is "${text}", which is not a number`);
  return Number.isInteger(n) ? { cpus: n } : { cpus: Math.floor(n) + 1, cpu: Math.round(n * 1000) };
}

/** Reads a time such as 90s, 5m or 1h30m, in seconds. */
export function seconds(text: string): number {
  const units: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600 };
  const word = text.trim();
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(word)) throw new Problem(`"${text}" is not a time`, "units are s, m and h");
  let sum = 0;
  for (const [, n, unit] of word.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) sum += Number(n) * units[unit!]!;
  return sum;
}

/** Reads TIME[=ACTION], or none. */
export function timer(text: string, action: Timer["action"]): Timer | undefined {
  const word = text.trim();
  if (word === "" || word === "none" || word === "0") return undefined;
  const [time, chosen] = cut(word, "=");
  return { seconds: Math.floor(seconds(time)), action: (chosen ?? action) as Timer["action"] };
}

/** Reads no, on-failure[:N] or always. */
export function restart(text: string): RestartPolicy {
  const [name, max] = cut(text.trim(), ":");
  const policy = { name: name as RestartPolicy["name"] };
  return max === undefined ? policy : { ...policy, max: whole(max, "the number of restarts") };
}

function range(text: string): number[] {
  const m = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(m?.[1]);
  const length = Number(m?.[2] ?? first) - first + 1;
  if (!(length > 0 && length <= 1000)) throw new Problem(`"${text}" is not a port or a range of ports`);
  return Array.from({ length }, (_, i) => first + i);
}

/** Reads a forward: [IP:][HOST:]GUEST[/PROTOCOL], where an address of IPv6 has brackets, and ports may be ranges. */
export function forward(text: string): Forward[] {
  const m = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):(?=[^:]*:)|\[([^\]]+)\]:)?(?:([\d-]*):)?([\d-]+)(?:\/(\w+))?$/.exec(
    text.trim(),
  );
  if (!m) throw new Problem(`"${text}" is not a forward`, "for example: 8080:80, 0.0.0.0:5353:53/udp or 0:80");
  const guest = range(m[5]!);
  const host = m[4] && m[4] !== "0" ? range(m[4]) : guest.map(() => 0);
  if (host.length !== guest.length) {
    throw new Problem(
      `"${text}" is not a forward: ${host.length} ports of the host do not fit ${guest.length} of the guest`,
    );
  }
  const ip = m[1] ?? m[2] ?? m[3] ?? "127.0.0.1";
  return guest.map((port, i) => ({ protocol: m[6] ?? "tcp", host_ip: ip, host_port: host[i], guest_port: port }));
}

/** Reads one rule of a policy: ACTION DESTINATION [PROTOCOL[:PORTS]]. */
export function rule(text: string): Rule {
  const [action, to, more, ...rest] = text.trim().split(/\s+/);
  if (!action || !to || rest.length) throw new Problem(`"${text}" is not ACTION DESTINATION [PROTOCOL[:PORTS]]`);
  const r: Rule = { action, to: to.toLowerCase().replace(/\.$/, "") };
  if (more) {
    const [protocol, ports] = cut(more, ":");
    r.protocol = protocol;
    if (ports !== undefined) r.ports = ports.split(",");
  }
  return r;
}

/** Reads the lines of a policy: rules, "default allow" or "default deny", and comments after #. */
export function policy(text: string): Policy {
  const p: Policy = { default: "deny" };
  for (const line of lines(text.replace(/#.*/g, ""))) {
    if (line === "allow" || line === "deny") p.default = line;
    else if (line.startsWith("default ")) p.default = line.slice(8).trim();
    else (p.rules ??= []).push(rule(line));
  }
  return p;
}

/** Reads lines of KEY=VALUE. */
export function pairs(text: string): Record<string, string> {
  return Object.fromEntries(lines(text).map((line) => [cut(line, "=")[0], cut(line, "=")[1] ?? ""]));
}

/** Reads NAME:ADDRESS or NAME=ADDRESS. */
export function host(text: string): NonNullable<CreateRequest["hosts"]>[number] {
  const m = /^([^:=]+)[:=]\[?([^\]]+)\]?$/.exec(text.trim());
  if (!m)
    throw new Problem(`"${text}" is not a name and an address`, "for example: db:10.0.0.7, or host:host-gateway");
  return { name: m[1]!, address: m[2]! };
}

/** Reads PATH[:OPTION,...]. */
export function tmpfs(text: string): NonNullable<CreateRequest["tmpfs"]>[number] {
  const [path, options] = cut(text.trim(), ":");
  return options === undefined ? { path } : { path, options: options.split(",") };
}

/** Reads NAME=SOFT[:HARD]. */
export function ulimit(text: string): { name: string; soft: number; hard: number } {
  const [name, value] = cut(text.trim(), "=");
  if (!name || !value) throw new Problem(`"${text}" is not a limit`, "for example: nofile=1024:2048");
  const [soft, hard] = cut(value, ":");
  return { name, soft: whole(soft, `the limit ${name}`), hard: whole(hard ?? soft, `the limit ${name}`) };
}

/** Reads the words of a command as a shell does, with quotes and backslashes, but replaces nothing in them. */
export function words(text: string): string[] {
  const list: string[] = [];
  let word: string | null = null;
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (quote) {
      if (c === quote) quote = "";
      else if (c === "\\" && quote === '"' && /["\\]/.test(text[i + 1] ?? "")) word += text[++i]!;
      else word += c;
    } else if (/\s/.test(c)) {
      if (word !== null) list.push(word);
      word = null;
    } else {
      word ??= "";
      if (c === "'" || c === '"') quote = c;
      else word += c === "\\" ? (text[++i] ?? "") : c;
    }
  }
  if (quote) throw new Problem(`the command has a ${quote} without an end`);
  if (word !== null) list.push(word);
  return list;
}

/** Returns a text as base64 of its UTF-8. */
export const base64 = (text: string): string =>
  btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));
