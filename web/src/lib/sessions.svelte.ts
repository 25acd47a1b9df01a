// The sessions of one machine, as its guest tells them.

import { again, Problem, stream } from "./api";
import type { Session, SessionChange } from "./nouns";

export class Sessions {
  /** The newest first; null before the guest has told them. */
  list = $state.raw<Session[] | null>(null);
  problem = $state.raw<Problem | null>(null);

  /** Follows the sessions of a machine until the returned function is called. It is made for $effect. A machine that is
   * suspended goes on when its guest is asked for anything, and nobody wants that of a page: so it has to run. */
  watch(vm: string, runs: boolean): () => void {
    this.list = this.problem = null;
    const end = new AbortController();
    if (runs) void this.#follow(vm, end.signal);
    return () => end.abort();
  }

  async #follow(vm: string, signal: AbortSignal): Promise<void> {
    let since: string | undefined;
    const all = new Map<string, Session>();
    const each = (change: SessionChange) => {
      if (change.error) throw Problem.of(change.error);
      since = change.cursor ?? since;
      if (change.state) all.clear();
      for (const s of change.sessions ?? []) all.set(s.name ?? "", s);
      if (change.session) all.set(change.session.name ?? "", change.session);
      if (change.removed) all.delete(change.removed);
      this.list = [...all.values()].sort((a, b) => (a.created < b.created ? 1 : -1));
      this.problem = null;
    };
    await again(
      signal,
      () => stream("/v1/vms/{vm}/session-events", { path: { vm }, query: { since }, signal }, each),
      (problem) => {
        this.problem = problem;
        return problem.code === "unavailable"; // else the daemon has said why there is no stream
      },
    );
  }
}

/** Says how a session's command has ended. */
export function endOf(s: Session): string {
  if (!s.exit) return s.reason ?? s.state;
  return s.exit.signal ? `ended by signal ${s.exit.signal}` : `ended (${s.exit.code})`;
}
