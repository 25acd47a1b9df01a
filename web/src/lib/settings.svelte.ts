// What this browser remembers of how a person wants the page to look. Nothing of it is secret.

/** Returns a value that is kept in localStorage under a name, if the browser keeps anything. */
function kept<T extends string>(name: string, values: readonly T[]): { value: T } {
  let stored: string | null = null;
  try {
    stored = localStorage.getItem(`banger.${name}`);
  } catch {
    // The browser keeps nothing, so each visit begins with the defaults.
  }
  let value = $state<T>(values.find((v) => v === stored) ?? values[0]!);
  return {
    get value() {
      return value;
    },
    set value(v: T) {
      value = v;
      try {
        localStorage.setItem(`banger.${name}`, v);
      } catch {
        // As above.
      }
    },
  };
}

export const theme = kept("theme", ["system", "dark", "light"] as const);
export const layout = kept("layout", ["auto", "table", "cards"] as const);
/** Whether single letters are commands. A person who speaks to the browser may not want that. */
export const letters = kept("letters", ["on", "off"] as const);
/** Whether terminals tell a screen reader what they show, which takes time. */
export const screenReader = kept("screen-reader", ["off", "on"] as const);

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Puts the theme in force. */
export function showTheme(): void {
  const now = theme.value === "system" ? (dark.matches ? "dark" : "light") : theme.value;
  document.documentElement.dataset.theme = now;
}

dark.addEventListener("change", showTheme);
