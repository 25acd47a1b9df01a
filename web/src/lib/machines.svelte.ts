// All VMs, as the daemon's stream of changes tells them. The stream is read for as long as the page is open.

import { problemOf, stream } from "./api";
import { history } from "./history.svelte";
import type { Change, VM } from "./nouns";
import { session } from "./session.svelte";

const firstPause = 200; // milliseconds before the stream is asked for again
const longestPause = 5000;
const frame = 16; // milliseconds between two batches of changes
const hiddenFrame = 100; // the same while the page is not visible

class Machines {
  /** Whether what is shown is the present: "lost" means that the stream broke, and is asked for again and again. */
  status = $state<"connecting" | "live" | "lost">("connecting");
  /** The VMs are known, as they are now or as they were when the stream broke. */
  known = $state(false);
  /** All VMs, newest first. Each batch of changes makes a new array, in which unchanged VMs are the same objects. */
  list = $state.raw<VM[]>([]);

  #byId = new Map<string, VM>();
  #cursor = "";
  #pending: Change[] = [];
  #planned = false;
  #started = false;
  #wake: () => void = () => {};

  /** Begins to read the stream. */
  start(): void {
    if (this.#started) return;
    this.#started = true;
    addEventListener("online", () => this.#wake());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake();
    });
    void this.#follow();
  }

  /** Returns the VM with a name or an id. */
  find(ref: string): VM | undefined {
    return this.list.find((vm) => vm.name === ref) ?? this.list.find((vm) => vm.id === ref);
  }

  /** Returns the VM with an id. */
  get(id: string): VM | undefined {
    void this.list; // a change of the list tells that a VM has changed; the map does not
    return this.#byId.get(id);
  }

  async #follow(): Promise<void> {
    let pause = firstPause;
    while (session.state === "open") {
      try {
        const query = this.#cursor ? { since: this.#cursor } : {};
        const each = (change: Change) => {
          this.#cursor = change.cursor;
          this.#pending.push(change);
          this.#plan();
        };
        await stream("/v1/events", { query }, each, () => {
          pause = firstPause;
          if (this.known) this.status = "live"; // the first line, with all VMs, is still to come otherwise
        });
      } catch (e) {
        if (problemOf(e).code === "invalid") this.#cursor = ""; // a daemon that knows no such cursor tells its state
      }
      this.status = "lost";
      await new Promise<void>((done) => {
        this.#wake = done;
        setTimeout(done, pause);
      });
      pause = Math.min(pause * 2, longestPause);
    }
    this.#started = false;
  }

  /**
   * Has the pending changes applied together. They are applied in a task of their own, and not in that of a frame,
   * which has enough to do with what they change.
   */
  #plan(): void {
    if (this.#planned) return;
    this.#planned = true;
    setTimeout(() => this.#apply(), document.hidden ? hiddenFrame : frame);
  }

  #apply(): void {
    this.#planned = false;
    for (const change of this.#pending) {
      history.note(change, change.vm ? this.#byId.get(change.vm.id) : this.#byId.get(change.removed ?? ""));
      if (change.state) this.#byId = new Map((change.vms ?? []).map((vm) => [vm.id, vm]));
      if (change.vm) this.#byId.set(change.vm.id, change.vm);
      if (change.removed) this.#byId.delete(change.removed);
    }
    this.#pending = [];
    history.show();
    this.list = [...this.#byId.values()].sort(
      (a, b) => +(a.created_at < b.created_at) - +(a.created_at > b.created_at),
    );
    this.status = "live";
    this.known = true;
  }
}

export const machines = new Machines();
