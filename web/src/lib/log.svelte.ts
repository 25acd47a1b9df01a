// The daemon's log: its last lines, and those that come.

import { isCancelled, lines, type Problem, problemOf } from "./api";

const kept = 2000; // lines
const batch = 100; // milliseconds for which lines are gathered
const pause = 2000; // milliseconds before a stream that broke is asked for again

export class Log {
  /** The oldest first; null before the daemon has answered. */
  list = $state.raw<string[] | null>(null);
  problem = $state.raw<Problem | null>(null);

  #new: string[] = [];
  #planned = 0;

  /** Follows the log until the returned function is called. It is made for $effect. */
  watch(): () => void {
    const end = new AbortController();
    void this.#follow(end.signal);
    return () => end.abort();
  }

  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const query = { tail: String(kept), follow: true };
        await lines(
          "/v1/log",
          { query, signal },
          (line) => this.#add(line),
          () => {
            this.#new = []; // what was known comes again
            this.list = [];
            this.problem = null;
          },
        );
      } catch (e) {
        if (isCancelled(e) || signal.aborted) return;
        this.problem = problemOf(e);
      }
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  #add(line: string): void {
    this.#new.push(line);
    this.#planned ||= window.setTimeout(() => {
      this.#planned = 0;
      this.list = [...(this.list ?? []), ...this.#new].slice(-kept);
      this.#new = [];
    }, batch);
  }
}
