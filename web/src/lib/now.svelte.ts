// The present time, for texts such as "3 min ago". It moves once a second while the page is visible.

let now = $state(Date.now());

setInterval(() => {
  if (!document.hidden) now = Date.now();
}, 1000);

export const clock = {
  /** Milliseconds since 1970. What reads it is shown anew each second. */
  get now(): number {
    return now;
  },
};
