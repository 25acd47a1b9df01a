// Small curves: the last hour of a value as the path of an SVG.

import { hourSteps, type Values } from "./metrics.svelte";

export const width = 84;
export const height = 20;
const steps = 4; // steps that are one point, or else a curve would have more points than pixels

/**
 * Returns the path of values of which the last belongs to a step. most is the value at the top. Where values are
 * missing, the curve has a gap. The same steps always are one point, so that a curve moves and does not tremble.
 */
export function curve(values: Values, step: number, most: number): string {
  const right = Math.floor(step / steps);
  const across = width / (hourSteps / steps);
  let path = "";
  let drawn = false; // the point before
  for (let i = 0; i < values.length; ) {
    const at = Math.floor((step - values.length + 1 + i) / steps);
    let sum = 0;
    let n = 0;
    for (; i < values.length && Math.floor((step - values.length + 1 + i) / steps) === at; i++) {
      const value = values[i];
      if (value === null || value === undefined) continue;
      sum += value;
      n++;
    }
    const x = width - 1 - (right - at) * across;
    if (n && x >= 0) {
      const y = height - 1 - Math.min(sum / n / most, 1) * (height - 2);
      path += `${drawn ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      if (!drawn) path += "h0"; // a point without neighbours is a dot
    }
    drawn = n > 0 && x >= 0;
  }
  return path;
}

export interface Extent {
  now: number | null;
  least: number | null;
  most: number | null;
}

/** Returns the latest, the least and the largest of values. */
export function extent(values: Values): Extent {
  let least: number | null = null;
  let most: number | null = null;
  for (const value of values) {
    if (value === null) continue;
    if (least === null || value < least) least = value;
    if (most === null || value > most) most = value;
  }
  return { now: values.at(-1) ?? null, least, most };
}
