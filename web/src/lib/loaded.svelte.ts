// What the daemon has answered to one question, for what it does not tell by a stream.

import { isCancelled, type Problem, problemOf } from "./api";

export class Loaded<T> {
  /** The latest answer; null before the first one. */
  value = $state.raw<T | null>(null);
  problem = $state.raw<Problem | null>(null);
  busy = $state(false);

  #ask: (signal: AbortSignal) => Promise<T>;
  #asked: AbortController | null = null;

  constructor(ask: (signal: AbortSignal) => Promise<T>) {
    this.#ask = ask;
  }

  /** Asks now, and whenever a person comes back to the page, until the returned function is called. */
  watch(): () => void {
    const look = () => {
      if (!document.hidden) void this.read();
    };
    document.addEventListener("visibilitychange", look);
    void this.read();
    return () => {
      document.removeEventListener("visibilitychange", look);
      this.#asked?.abort();
    };
  }

  /** Asks again. Only the latest question counts. */
  async read(): Promise<void> {
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    this.busy = true;
    try {
      const value = await this.#ask(asked.signal);
      if (this.#asked !== asked) return;
      this.value = value;
      this.problem = null;
    } catch (e) {
      if (this.#asked === asked && !isCancelled(e)) this.problem = problemOf(e);
    } finally {
      if (this.#asked === asked) this.busy = false;
    }
  }
}
