// What the page has asked the daemon to do: how far it is, and what has failed. Notices.svelte shows it.

import { isCancelled, type Problem, problemOf } from "./api";
import type { Event } from "./nouns";

const shownFor = 4000; // milliseconds for which a success is shown

export interface Operation {
  id: number;
  /** What is done, such as "Start web". */
  title: string;
  state: "running" | "done" | "failed";
  /** How far it is. */
  text: string;
  problem: Problem | null;
}

class Operations {
  list = $state<Operation[]>([]);
  #last = 0;

  /** Runs something and shows how it goes. It returns undefined after a failure, which is shown already. */
  async run<T>(title: string, work: (tell: (event: Event) => void) => Promise<T>): Promise<T | undefined> {
    this.list.push({ id: ++this.#last, title, state: "running", text: "", problem: null });
    const operation = this.list.at(-1)!; // the proxy, which tells of changes
    try {
      const result = await work((event) => {
        if (event.text) operation.text = event.text;
      });
      operation.state = "done";
      setTimeout(() => this.dismiss(operation.id), shownFor);
      return result;
    } catch (e) {
      if (isCancelled(e)) {
        this.dismiss(operation.id);
      } else {
        operation.problem = problemOf(e);
        operation.state = "failed";
      }
      return undefined;
    }
  }

  /** Shows that something has failed. */
  fail(title: string, e: unknown): void {
    this.list.push({ id: ++this.#last, title, state: "failed", text: "", problem: problemOf(e) });
  }

  dismiss(id: number): void {
    this.list = this.list.filter((o) => o.id !== id);
  }
}

export const operations = new Operations();
