// The form for a new machine: what a person wrote in it becomes the request. Fields that are empty are not sent, so
// that the daemon's defaults hold.

import * as notation from "./notation";
import type { CreateRequest, Probe } from "./nouns";

/** The texts and ticks of the form, under the names of the command line's flags. */
export const blank = () => ({
  image: "",
  name: "",
  command: "",
  cpus: "",
  memory: "",
  disk: "",
  pull: "",
  platform: "",
  entrypoint: "",
  clearEntrypoint: false,
  workdir: "",
  user: "",
  tty: false,
  stdin: false,
  env: "",
  labels: "",
  secrets: "",
  secretEnv: "",
  network: "",
  publish: "",
  publishAll: false,
  policy: "",
  allow: "",
  deny: "",
  untrusted: false,
  hostname: "",
  hosts: "",
  dns: "",
  dnsSearch: "",
  ca: "",
  autoRemove: false,
  restart: "",
  ttl: "",
  idle: "",
  noWake: false,
  stopSignal: "",
  stopTimeout: "",
  ready: "",
  readyInterval: "",
  readyTimeout: "",
  readyStart: "",
  readyRetries: "",
  noReady: false,
  readOnly: false,
  tmpfs: "",
  ulimits: "",
  capDrop: "",
  capAdd: "",
  noNewPrivileges: false,
  sessionDisk: "",
  kernel: "",
  vmm: "",
  init: "",
  warm: "",
  cpuModel: "",
  nested: "",
});

export type Form = ReturnType<typeof blank>;

const text = (value: string) => value.trim() || undefined;
const tick = (value: boolean) => value || undefined;
const some = <T>(list: T[]): T[] | undefined => (list.length ? list : undefined);
const parsed = <T>(value: string, parse: (text: string) => T): T | undefined =>
  value.trim() ? parse(value) : undefined;
const words = (value: string) => some(value.split(/[\s,]+/).filter(Boolean));

function policyOf(f: Form): CreateRequest["policy"] {
  const deny = notation.lines(f.deny).map((line) => notation.rule(`deny ${line}`));
  const allow = notation.lines(f.allow).map((line) => notation.rule(`allow ${line}`));
  if (!f.policy.trim() && !deny.length && !allow.length) return undefined;
  const base = f.policy.trim() ? notation.policy(f.policy) : { default: f.untrusted ? "deny" : "allow" };
  return { ...base, rules: some([...deny, ...allow, ...(base.rules ?? [])]) };
}

function probeOf(f: Form): Probe | undefined {
  const time = (value: string) => parsed(value, (t) => Math.round(notation.seconds(t) * 1e9));
  if (!f.ready.trim()) return undefined;
  return {
    check: f.ready.trim(),
    interval_ns: time(f.readyInterval),
    timeout_ns: time(f.readyTimeout),
    start_period_ns: time(f.readyStart),
    retries: parsed(f.readyRetries, (t) => notation.whole(t, "the number of retries")),
  };
}

function confineOf(f: Form, cpu: number | undefined): CreateRequest["confine"] {
  const confine = {
    cpu,
    ulimits: some(notation.lines(f.ulimits).map(notation.ulimit)),
    cap_drop: words(f.capDrop),
    cap_add: words(f.capAdd),
    no_new_privileges: tick(f.noNewPrivileges),
    session_disk: parsed(f.sessionDisk, notation.size),
  };
  return Object.values(confine).some((v) => v !== undefined) ? confine : undefined;
}

/** Returns the request that a form asks for. It throws a Problem about a text that has not the form of its field. */
export function requestOf(f: Form): CreateRequest {
  const cpus = parsed(f.cpus, notation.cpus);
  const secrets = Object.entries(notation.pairs(f.secrets));
  const labels = notation.pairs(f.labels);
  return {
    image: f.image.trim(),
    name: text(f.name),
    cmd: parsed(f.command, notation.words),
    cpus: cpus?.cpus,
    memory: parsed(f.memory, notation.size),
    disk: parsed(f.disk, notation.size),
    pull: text(f.pull) as CreateRequest["pull"],
    platform: text(f.platform),
    entrypoint: f.clearEntrypoint ? [""] : parsed(f.entrypoint, (t) => [t.trim()]),
    working_dir: text(f.workdir),
    user: text(f.user),
    tty: tick(f.tty),
    stdin: tick(f.stdin),
    env: some(notation.lines(f.env)),
    labels: Object.keys(labels).length ? labels : undefined,
    secrets: secrets.length ? Object.fromEntries(secrets.map(([k, v]) => [k, notation.base64(v)])) : undefined,
    secret_env: words(f.secretEnv),
    network: text(f.network),
    forwards: some(notation.lines(f.publish).flatMap(notation.forward)),
    publish_all: tick(f.publishAll),
    policy: policyOf(f),
    untrusted: tick(f.untrusted),
    hostname: text(f.hostname),
    hosts: some(notation.lines(f.hosts).map(notation.host)),
    dns: words(f.dns),
    dns_search: words(f.dnsSearch),
    ca: text(f.ca),
    auto_remove: tick(f.autoRemove),
    restart: parsed(f.restart, notation.restart),
    ttl: notation.timer(f.ttl, "stop"),
    idle: notation.timer(f.idle, "suspend"),
    no_wake: tick(f.noWake),
    stop_signal: text(f.stopSignal),
    stop_timeout: parsed(f.stopTimeout, (t) => notation.whole(t, "the time until a stop kills")),
    ready: probeOf(f),
    no_ready: tick(f.noReady),
    read_only: tick(f.readOnly),
    tmpfs: some(notation.lines(f.tmpfs).map(notation.tmpfs)),
    confine: confineOf(f, cpus?.cpu),
    kernel: text(f.kernel),
    vmm: text(f.vmm) as CreateRequest["vmm"],
    init: text(f.init) as CreateRequest["init"],
    warm: text(f.warm) as CreateRequest["warm"],
    cpu_model: text(f.cpuModel),
    nested: text(f.nested),
  };
}
