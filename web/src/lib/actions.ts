// What a person can do with machines. Whether it is possible is for the daemon to say: it answers with a sentence.

import type { IconName } from "../components/icons";
import { call, perform } from "./api";
import { dialogs } from "./dialogs.svelte";
import type { Event, VM } from "./nouns";
import { operations } from "./operations.svelte";

export interface Action {
  id: string;
  label: string;
  icon: IconName;
  danger?: boolean;
  /** It can be done with several machines at once. */
  bulk?: boolean;
  run: (vms: readonly VM[]) => void;
}

type Tell = (event: Event) => void;

const atOnce = 3; // a browser has six connections to one server, and one of them has the changes

/** Does one thing with each machine, a few at a time. */
async function each(
  label: string,
  vms: readonly VM[],
  work: (vm: string, tell: Tell) => Promise<unknown>,
): Promise<void> {
  const left = [...vms];
  const next = async (): Promise<void> => {
    for (let vm = left.shift(); vm; vm = left.shift()) {
      const { id, name } = vm;
      await operations.run(`${label} ${name}`, (tell) => work(id, tell));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, next));
}

const verb = (label: string, work: (vm: string, tell: Tell) => Promise<unknown>) => (vms: readonly VM[]) =>
  void each(label, vms, work);

const path = (vm: string) => ({ path: { vm } });

/** Removes machines; force kills those that run. */
export const remove = (vms: readonly VM[], force: boolean): Promise<void> =>
  each("Remove", vms, (vm) => call("delete", "/v1/vms/{vm}", { ...path(vm), query: { force } }));

export const actions: Action[] = [
  {
    id: "start",
    label: "Start",
    icon: "play",
    bulk: true,
    run: verb("Start", (vm, tell) => perform("post", "/v1/vms/{vm}/start", path(vm), tell)),
  },
  {
    id: "stop",
    label: "Stop",
    icon: "stop",
    bulk: true,
    run: verb("Stop", (vm) => call("post", "/v1/vms/{vm}/stop", path(vm))),
  },
  {
    id: "restart",
    label: "Restart",
    icon: "restart",
    run: verb("Restart", (vm, tell) => perform("post", "/v1/vms/{vm}/restart", path(vm), tell)),
  },
  {
    id: "suspend",
    label: "Suspend",
    icon: "moon",
    bulk: true,
    run: verb("Suspend", (vm) => call("post", "/v1/vms/{vm}/suspend", path(vm))),
  },
  {
    id: "resume",
    label: "Resume",
    icon: "play",
    run: verb("Resume", (vm, tell) => perform("post", "/v1/vms/{vm}/resume", path(vm), tell)),
  },
  {
    id: "pause",
    label: "Pause",
    icon: "pause",
    run: verb("Pause", (vm) => call("post", "/v1/vms/{vm}/pause", path(vm))),
  },
  { id: "fork", label: "Fork…", icon: "fork", run: ([vm]) => vm && openFork(vm, vm) },
  {
    id: "snapshot",
    label: "Take a snapshot…",
    icon: "camera",
    run: ([vm]) => vm && dialogs.open(() => import("../views/machine/TakeSnapshot.svelte"), { vm }),
  },
  {
    id: "compare",
    label: "Compare…",
    icon: "compare",
    run: ([vm]) => vm && dialogs.open(() => import("../views/machine/Compare.svelte"), { vm }),
  },
  {
    id: "rename",
    label: "Rename…",
    icon: "edit",
    run: ([vm]) => vm && dialogs.open(() => import("../views/machine/Rename.svelte"), { vm }),
  },
  {
    id: "update",
    label: "Update…",
    icon: "system",
    run: ([vm]) => vm && dialogs.open(() => import("../views/machine/Update.svelte"), { vm }),
  },
  {
    id: "secrets",
    label: "Suspend with its secrets",
    icon: "moon",
    run: verb("Suspend", (vm) =>
      call("post", "/v1/vms/{vm}/suspend", { ...path(vm), query: { with_secrets: true } }),
    ),
  },
  {
    id: "cold",
    label: "Start from its disk",
    icon: "play",
    run: verb("Start", (vm, tell) =>
      perform("post", "/v1/vms/{vm}/start", { ...path(vm), query: { cold: true } }, tell),
    ),
  },
  {
    id: "kill",
    label: "Kill",
    icon: "stop",
    danger: true,
    run: verb("Kill", (vm) => call("post", "/v1/vms/{vm}/kill", { ...path(vm), query: { signal: 9 } })),
  },
  {
    id: "remove",
    label: "Remove…",
    icon: "remove",
    danger: true,
    bulk: true,
    run: (vms) => vms.length && dialogs.open(() => import("../views/machine/Remove.svelte"), { vms: [...vms] }),
  },
];

/** Opens the dialog for machines that go on from a machine, or from a snapshot of it. */
export function openFork(from: { id: string; name: string }, vm: VM): void {
  const props = { id: from.id, from: from.name, secrets: Boolean(vm.secrets?.length) };
  void dialogs.open(() => import("../views/machine/Fork.svelte"), props);
}
