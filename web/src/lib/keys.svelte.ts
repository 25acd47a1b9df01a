// Keys that are commands of a view, and the list of them that "?" shows.

import { letters } from "./settings.svelte";

export interface Key {
  /** As in KeyboardEvent.key; "Ctrl+k" means Control, or Command on a Mac. */
  key: string;
  /** Other keys that do the same, and are not in the list. */
  also?: string[];
  /** What the list shows for the key; "" leaves it out. */
  shown?: string;
  does: string;
  run: (e: KeyboardEvent) => void;
  /** It counts in fields of text too. */
  inText?: boolean;
}

class Keys {
  groups = $state.raw<{ name: string; keys: Key[] }[]>([]);

  /** Adds keys until the returned function is called. It is made for onMount. */
  add(name: string, keys: Key[]): () => void {
    const group = { name, keys };
    this.groups = [...this.groups, group];
    return () => (this.groups = this.groups.filter((g) => g !== group));
  }

  handle(e: KeyboardEvent): void {
    if (e.defaultPrevented || e.altKey || e.isComposing) return;
    const control = e.ctrlKey || e.metaKey;
    if (document.querySelector("dialog[open]")) return;
    const target = e.composedPath()[0] ?? e.target; // also within the shadow of an editor
    const typing = isTyping(target);
    const pressed = control ? `Ctrl+${e.key.toLowerCase()}` : e.key;
    if ((pressed === " " || pressed === "Enter") && isControl(target)) return; // the key is the control's
    if (/^[^\s]$/.test(pressed) && letters.value === "off") return;
    for (let i = this.groups.length - 1; i >= 0; i--) {
      const found = this.groups[i]!.keys.find(
        (k) => (k.key === pressed || k.also?.includes(pressed)) && (k.inText || !typing),
      );
      if (found) {
        e.preventDefault();
        found.run(e);
        return;
      }
    }
  }
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button"].includes(target.type);
  return target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName);
}

const isControl = (target: EventTarget | null): boolean =>
  target instanceof Element && target.closest("a, button, input, summary") !== null;

export const keys = new Keys();
addEventListener("keydown", (e) => keys.handle(e));
