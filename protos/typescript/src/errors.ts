/** The error of a failed call. */

import { createRegistry, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  file_google_rpc_error_details,
  RetryInfoSchema,
} from "./google/rpc/error_details_pb.js";
import { StatusSchema } from "./google/rpc/status_pb.js";

/** A field of the request that is wrong. */
export interface FieldViolation {
  /** Its path in the JSON of the request: `items[0].unitPrice`. */
  readonly field: string;
  /** What it must be, for a person. */
  readonly message: string;
  /** The name of the rule, for a program: `string.min_len`; empty if the rule has no name. */
  readonly rule: string;
}

// The request was not wrong: the same one may succeed later.
const PASSING: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
  Code.Canceled,
  Code.Internal,
  Code.Unknown,
]);

// After these the same call may succeed with another access token.
export const REFUSED_TOKEN: readonly string[] = ["TOKEN_EXPIRED", "TOKEN_INVALID"];

// Answers of a proxy that did not reach the shop.
const GATEWAY_STATUSES: readonly number[] = [502, 503, 504];

const DETAILS = createRegistry(file_google_rpc_error_details);

/** A call that failed. Its `cause` is the error of the layer below. */
export class ShopError extends Error {
  override readonly name = "ShopError";
  /** gRPC's status code. */
  readonly code: Code;
  /** Why, for a program: `EMAIL_TAKEN`. Empty if the call did not reach the shop, or its answer was lost. */
  readonly reason: string;
  /** The package whose enum `ErrorReason` has the reason: `shop.user.v1`. */
  readonly domain: string;
  /** The facts of the message, by their names in the enum's comments. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields of the request that are wrong. */
  readonly fields: readonly FieldViolation[];
  /** Milliseconds after which to try again; undefined if the shop did not say. */
  readonly retryAfterMs: number | undefined;
  /** The id under which the shop has logged the call; empty if no answer came. */
  readonly requestId: string;

  constructor(failure: ConnectError) {
    super(failure.rawMessage, { cause: failure });
    const info = failure.findDetails(ErrorInfoSchema)[0];
    const violations = failure.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
    const delay = failure.findDetails(RetryInfoSchema)[0]?.retryDelay;
    // With `fetch`, the network fails with a TypeError.
    this.code = failure.cause instanceof TypeError ? Code.Unavailable : failure.code;
    this.reason = info?.reason ?? "";
    this.domain = info?.domain ?? "";
    this.metadata = info?.metadata ?? {};
    this.fields = violations.map((each) => ({ field: each.field, message: each.description, rule: each.reason }));
    this.retryAfterMs = delay && durationMs(delay);
    this.requestId = failure.metadata.get("x-request-id") ?? "";
  }

  /** Return what any error of a call says. */
  static of(error: unknown): ShopError {
    return error instanceof ShopError ? error : new ShopError(ConnectError.from(error));
  }

  /** Return what a response over REST says, whose status is not 2xx. Reads its body. */
  static async ofResponse(response: Response): Promise<ShopError> {
    const text = await response.text();
    try {
      const options = { registry: DETAILS, ignoreUnknownFields: true };
      const status = fromJson(StatusSchema, JSON.parse(text) as JsonValue, options);
      if (Code[status.code] === undefined) {
        throw new RangeError(`there is no status code ${status.code}`); // JSON of another party, which has names of its own
      }
      const failure = new ConnectError(status.message, status.code, response.headers);
      failure.details = status.details.map((each) => ({
        type: each.typeUrl.slice(each.typeUrl.lastIndexOf("/") + 1),
        value: each.value,
      }));
      return new ShopError(failure);
    } catch (cause) {
      const code = GATEWAY_STATUSES.includes(response.status) ? Code.Unavailable : Code.Unknown;
      const message = `An answer that is not the shop's, with status ${response.status}.`;
      return new ShopError(new ConnectError(message, code, response.headers, undefined, cause));
    }
  }

  /** Whether the same request may succeed later. */
  get mayPass(): boolean {
    return PASSING.has(this.code);
  }
}
