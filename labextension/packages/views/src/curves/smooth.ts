/** Exponential moving average of a line, as TensorBoard has it: unbiased at the start, blind to gaps. Pure. */

/** Writes the average of `values` into `into`; a NaN stays a gap and does not enter the average. */
export function smooth(values: Float64Array, count: number, weight: number, into: Float64Array): void {
  let [sum, unbiased] = [0, 0];
  for (let i = 0; i < count; i += 1) {
    const value = values[i] ?? NaN;
    if (value !== value) {
      into[i] = NaN;
      continue;
    }
    sum = sum * weight + (1 - weight) * value;
    unbiased = unbiased * weight + (1 - weight);
    into[i] = unbiased > 0 ? sum / unbiased : value;
  }
}
