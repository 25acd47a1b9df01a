// The daemon's log: its last lines, and those that come.

import { again, lines, type Problem } from "./api";

const kept = 2000; // lines
const batch = 100; // milliseconds for which lines are gathered

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

  #follow(signal: AbortSignal): Promise<void> {
    const query = { tail: String(kept), follow: true };
    const begin = () => {
      this.#new = []; // what was known comes again
      this.list = [];
      this.problem = null;
    };
    return again(
      signal,
      () => lines("/v1/log", { query, signal }, (line) => this.#add(line), begin),
      (problem) => {
        this.problem = problem;
        return true;
      },
    );
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
