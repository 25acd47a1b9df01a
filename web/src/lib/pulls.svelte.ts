// What is being fetched: images and kernels. It goes on while the page is open, whichever view is shown.

import { isCancelled, perform, type Problem, problemOf } from "./api";
import type { Event } from "./nouns";
import { withEvent } from "./stages";

const atOnce = 3; // a browser has six connections to one server, and one of them has the changes
const shownFor = 8000; // milliseconds for which a success is shown

type Work = (tell: (event: Event) => void, signal: AbortSignal) => Promise<unknown>;

export class Pull {
  state = $state<"waiting" | "running" | "done" | "failed">("waiting");
  events = $state.raw<readonly Event[]>([]);
  problem = $state.raw<Problem | null>(null);
  readonly end = new AbortController();

  constructor(
    readonly id: number,
    readonly title: string,
    readonly work: Work,
  ) {}
}

class Pulls {
  list = $state.raw<Pull[]>([]);
  /** How many have ended; it tells lists of what is here to ask again. */
  ended = $state(0);
  #last = 0;

  image(reference: string, platform: string): void {
    const body = { reference, platform: platform || undefined };
    this.#add(reference, (tell, signal) => perform("post", "/v1/images/pull", { body, signal }, tell));
  }

  kernel(): void {
    this.#add("The distribution's cloud kernel", (tell, signal) =>
      perform("post", "/v1/kernels/pull", { signal }, tell),
    );
  }

  /** Ends a pull that is under way, or takes the notice of one that has ended away. */
  dismiss(pull: Pull): void {
    pull.end.abort();
    this.list = this.list.filter((p) => p !== pull);
    this.#next();
  }

  again(pull: Pull): void {
    this.dismiss(pull);
    this.#add(pull.title, pull.work);
  }

  #add(title: string, work: Work): void {
    this.list = [...this.list, new Pull(++this.#last, title, work)];
    this.#next();
  }

  #next(): void {
    const free = atOnce - this.list.filter((p) => p.state === "running").length;
    for (const pull of this.list.filter((p) => p.state === "waiting").slice(0, Math.max(free, 0))) {
      void this.#run(pull);
    }
  }

  async #run(pull: Pull): Promise<void> {
    pull.state = "running";
    try {
      await pull.work((event) => (pull.events = withEvent(pull.events, event)), pull.end.signal);
      pull.state = "done";
      setTimeout(() => this.dismiss(pull), shownFor);
    } catch (e) {
      if (!isCancelled(e)) {
        pull.problem = problemOf(e);
        pull.state = "failed";
      }
    }
    this.ended++;
    this.#next();
  }
}

export const pulls = new Pulls();
