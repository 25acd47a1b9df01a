// Images as lists show them: one entry for each, with all its names.

import { call } from "./api";
import { dialogs } from "./dialogs.svelte";
import type { Image, ImageUsage, VM } from "./nouns";

export interface Entry {
  digest: string;
  names: string[];
  usage: ImageUsage | undefined;
  image: Image | undefined;
}

/** Returns all images, by their first name; those without a name are last. */
export async function entries(signal: AbortSignal): Promise<Entry[]> {
  const [images, usage] = await Promise.all([
    call("get", "/v1/images", { signal }),
    call("get", "/v1/images/usage", { signal }),
  ]);
  const digests = new Set([...images, ...usage].map((i) => i.digest));
  const list = [...digests].map((digest) => {
    const same = images.filter((i) => i.digest === digest);
    return {
      digest,
      names: same.map((i) => i.reference).sort(),
      usage: usage.find((u) => u.digest === digest),
      image: same[0],
    };
  });
  const key = (e: Entry) => (e.names[0] === undefined ? 1 : 0);
  return list.sort((a, b) => key(a) - key(b) || ((a.names[0] ?? a.digest) < (b.names[0] ?? b.digest) ? -1 : 1));
}

/** Returns the machines whose disks are made of an image. */
export const usersOf = (digest: string, vms: readonly VM[]): VM[] => vms.filter((vm) => vm.image_digest === digest);

export const newMachine = (image: string) => dialogs.open(() => import("../views/NewMachine.svelte"), { image });

/** Asks whether a name of an image, or an image with all its names, is to be removed. */
export function removeImage(reference: string, names: readonly string[], done: () => void): void {
  const others = names.filter((n) => n !== reference);
  const rest = `Its other names stay: ${others.join(", ")}.`;
  void dialogs.open(() => import("../components/Confirm.svelte"), {
    title: `Remove ${reference}?`,
    label: "Remove",
    text: names.includes(reference) && others.length ? rest : "The image and its files are removed.",
    work: async () => {
      await call("delete", "/v1/image", { query: { reference } });
      done();
    },
  });
}
