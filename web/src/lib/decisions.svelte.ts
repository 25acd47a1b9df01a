// What the policy of a machine refuses and allows, as that happens.

import { again, type Problem, stream } from "./api";
import type { Decision } from "./nouns";

export const most = 500; // decisions that are shown
const step = 20; // decisions that one frame adds, so that a busy guest makes no long task

export class Decisions {
  /** The newest first. */
  list = $state.raw<Decision[]>([]);
  problem = $state.raw<Problem | null>(null);

  #new: Decision[] = [];
  #planned = 0;

  /** Follows what is decided about a machine until the returned function is called. It is made for $effect. */
  watch(vm: string, all: boolean): () => void {
    this.list = this.#new = [];
    const end = new AbortController();
    void this.#follow(vm, all, end.signal);
    return () => end.abort();
  }

  #follow(vm: string, all: boolean, signal: AbortSignal): Promise<void> {
    const options = { path: { vm }, query: { tail: String(most), follow: true }, signal };
    const begin = () => {
      this.#new = []; // what was known comes again
      this.list = [];
      this.problem = null;
    };
    const each = (d: Decision) => {
      if (!signal.aborted) this.#add(d);
    };
    return again(
      signal,
      async () => {
        if (all) await stream("/v1/vms/{vm}/decisions", options, each, begin);
        else await stream("/v1/vms/{vm}/denials", options, each, begin);
        return "over"; // the machine has ended
      },
      (problem) => {
        this.problem = problem;
        return problem.code === "unavailable";
      },
    );
  }

  #add(d: Decision): void {
    this.#new.push(d);
    if (this.#new.length > most) this.#new.shift(); // a page that is not visible has no frames
    this.#planned ||= requestAnimationFrame(() => this.#show());
  }

  #show(): void {
    const batch = this.#new.splice(0, step).reverse();
    this.list = [...batch, ...this.list].slice(0, most);
    this.#planned = this.#new.length ? requestAnimationFrame(() => this.#show()) : 0;
  }
}
