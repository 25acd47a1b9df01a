// The session of this browser: a bearer token, which one tab has for as long as it is open.

import { authorize, type Problem, problemOf, send } from "./api";

const key = "banger.bearer"; // in sessionStorage: other origins, and other tabs, do not have it
const idKey = "banger.session"; // which of the sessions it is

class Session {
  /** What the page may show: nothing yet, its views, or only that there is no session. */
  state = $state<"unknown" | "open" | "none">("unknown");
  /** Which of the UI's sessions is this one. */
  id = "";
  /** Why a login has failed. */
  problem = $state.raw<Problem | null>(null);

  /** Takes the token out of the address, if there is one, and makes a session of it. */
  async begin(): Promise<void> {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (token !== null) {
      history.replaceState(history.state, "", location.pathname + location.search);
      try {
        const response = await send("POST", "/ui/login", {
          body: JSON.stringify({ token }),
          headers: { "Content-Type": "application/json" },
        });
        const { bearer, id } = await response.json();
        sessionStorage.setItem(key, bearer);
        sessionStorage.setItem(idKey, id);
      } catch (e) {
        this.problem = problemOf(e);
      }
    }
    const bearer = sessionStorage.getItem(key);
    if (bearer === null) {
      this.state = "none";
      return;
    }
    this.id = sessionStorage.getItem(idKey) ?? "";
    this.problem = null; // a used address does no harm to a tab that has a session
    authorize(bearer, () => this.#end());
    this.state = "open";
  }

  #end(): void {
    sessionStorage.removeItem(key);
    authorize("", () => {});
    this.state = "none";
  }
}

export const session = new Session();

// An address with a token that is typed into an open tab changes only the fragment, so nothing is loaded again.
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) location.reload();
});
