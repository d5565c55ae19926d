/** Amounts of money as decimals, exact. */

import { create } from "@bufbuild/protobuf";
import { type Money, MoneySchema } from "./google/type/money_pb.js";

const NANOS = 1_000_000_000n;
// Units are 64 bits.
const UNITS_LIMIT = 2n ** 63n;

/**
 * Return an amount as the contract has it: `money("4.50")`.
 *
 * @param amount with at most nine decimals; text, because a number is not exact.
 * @param currencyCode of ISO 4217; empty for the order's.
 * @throws RangeError it is no such amount.
 */
export function money(amount: string, currencyCode = ""): Money {
  const [, sign, units, decimals = ""] = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(amount) ?? [];
  if (units === undefined || BigInt(units) >= UNITS_LIMIT) {
    throw new RangeError(`write an amount with at most nine decimals, such as "4.50", not ${JSON.stringify(amount)}`);
  }
  const factor = sign === "-" ? -1n : 1n;
  const nanos = Number(factor * BigInt(decimals.padEnd(9, "0")));
  return create(MoneySchema, { units: factor * BigInt(units), nanos, currencyCode });
}

/** Return an amount without its currency, and without zeros at its end: `4.5`. */
export function decimalOf(amount: Money): string {
  const nanos = amount.units * NANOS + BigInt(amount.nanos);
  const exact = nanos < 0n ? -nanos : nanos;
  const decimals = (exact % NANOS).toString().padStart(9, "0").replace(/0+$/, "");
  return `${nanos < 0n ? "-" : ""}${exact / NANOS}${decimals && `.${decimals}`}`;
}
