// The events of a long request, as its progress shows them.

import type { Event } from "./nouns";

/** Adds an event: the result has the last one of each stage. The events of single layers are left out. */
export function withEvent(events: readonly Event[], event: Event): readonly Event[] {
  if (!event.stage || event.layer) return events; // the line for all layers says enough
  const before = events.find((e) => e.stage === event.stage);
  return [...events.filter((e) => e !== before), { ...event, text: event.text ?? before?.text }];
}
