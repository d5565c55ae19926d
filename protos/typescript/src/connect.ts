/** Transports whose calls log in by themselves and fail with ShopError. */

import {
  clone,
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  getOption,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { Code, type ContextValues, type StreamResponse, type Transport, type UnaryResponse } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { REFUSED_TOKEN, ShopError } from "./errors.js";
import { Login, LoginSession, type TokenSource } from "./login.js";
import { access } from "./shop/system/v1/access_pb.js";
import { sleep, unlessAborted } from "./waiting.js";

/** An access token, a function that returns one, or a Login, which gets and renews it. */
export type Token = string | (() => string | Promise<string>) | Login;

export interface ConnectOptions {
  readonly token?: Token;
  /** The deadline of a call that names none; streams have one only if their caller names it. */
  readonly timeoutMs?: number;
  /** How often a call is tried in all if the shop is UNAVAILABLE. */
  readonly maxAttempts?: number;
  /** What sends the requests, in place of the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

const TIMEOUT_MS = 10_000;
// 28 hours: the header `grpc-timeout` has eight digits, and setTimeout runs at once above 2^31.
const LONGEST_TIMEOUT_MS = 99_999_999;
const MAX_ATTEMPTS = 3;
const FIRST_PAUSE_MS = 50;
// As gRPC's retryThrottling: a failed try takes one of ten, a call that succeeds gives back a tenth, and with five or
// fewer nothing is tried again. If more than about a tenth of the calls fail, retries keep an overloaded shop down.
const MAX_RETRY_TOKENS = 10;
const RETRY_TOKENS_OF_SUCCESS = 0.1;

/**
 * Return a transport for typed clients: `createClient(OrderService, connect("https://shop.example"))`.
 *
 * A call that fails throws ShopError. Every call has a deadline, 10 s unless it names one. If the shop is UNAVAILABLE and
 * does not say when to come again, a call is tried again, three times in all; while many calls fail, it is not. A write
 * without a `requestId` gets one, so that its tries take effect once; to repeat a call after an error, set the requestId
 * yourself.
 *
 * @param url of the edge. A page may call it if the edge allows the page's origin.
 */
export function connect(url: string, options: ConnectOptions = {}): Transport {
  return new ShopTransport(url, options);
}

class ShopTransport implements Transport {
  readonly #web: Transport;
  readonly #tokens: TokenSource | undefined;
  readonly #timeoutMs: number;
  readonly #maxAttempts: number;
  #retryTokens = MAX_RETRY_TOKENS;

  constructor(url: string, options: ConnectOptions) {
    const { token, fetch } = options;
    this.#web = createGrpcWebTransport({ baseUrl: url, ...(fetch && { fetch }) });
    this.#tokens = token === undefined ? undefined : this.#source(token);
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#maxAttempts = options.maxAttempts ?? MAX_ATTEMPTS;
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    // One id for all tries.
    const message = withRequestId(method.input, input);
    const send = (headers: Headers) =>
      this.#tried(Math.min(timeoutMs ?? this.#timeoutMs, LONGEST_TIMEOUT_MS), signal, (leftMs) =>
        this.#web.unary<I, O>(method, signal, leftMs, headers, message, contextValues),
      );
    const [headers, token] = await this.#authorized(method, header, signal);
    try {
      return await send(headers);
    } catch (error) {
      if (!this.#takeRefusal(error, token)) {
        throw error;
      }
    }
    return send((await this.#authorized(method, header, signal))[0]);
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const [headers, token] = await this.#authorized(method, header, signal);
    const noted = (failure: unknown): ShopError => {
      const error = ShopError.of(failure);
      this.#takeRefusal(error, token); // the next stream gets another one
      return error;
    };
    try {
      const boundedMs = timeoutMs && Math.min(timeoutMs, LONGEST_TIMEOUT_MS);
      const response = await this.#web.stream(method, signal, boundedMs, headers, input, contextValues);
      return { ...response, message: failing(response.message, noted) };
    } catch (failure) {
      throw noted(failure);
    }
  }

  #source(token: Token): TokenSource {
    if (token instanceof Login) {
      return new LoginSession(token, this);
    }
    return { token: async () => (typeof token === "string" ? token : token()), refuse: () => false };
  }

  /** Return the headers of a call, and the token in them if it is ours. */
  async #authorized(
    method: DescMethod,
    given: HeadersInit | undefined,
    signal: AbortSignal | undefined,
  ): Promise<[headers: Headers, token: string]> {
    const headers = new Headers(given);
    if (!this.#tokens || headers.has("authorization") || getOption(method, access).public) {
      return [headers, ""];
    }
    const token = await unlessAborted(this.#tokens.token(), signal);
    headers.set("authorization", `Bearer ${token}`);
    return [headers, token];
  }

  /** Take note that our token was refused, if that is the error; return whether another one can be had. */
  #takeRefusal(error: unknown, token: string): boolean {
    const isRefused =
      error instanceof ShopError && error.code === Code.Unauthenticated && REFUSED_TOKEN.includes(error.reason);
    return isRefused && token !== "" && this.#tokens?.refuse(token) === true;
  }

  async #tried<R>(
    timeoutMs: number,
    signal: AbortSignal | undefined,
    send: (leftMs: number) => Promise<R>,
  ): Promise<R> {
    const endsAtMs = performance.now() + timeoutMs;
    for (let attempt = 1; ; attempt++) {
      try {
        // Whole milliseconds, as the header has them; 0 would be no deadline.
        const answer = await send(Math.max(Math.ceil(endsAtMs - performance.now()), 1));
        this.#retryTokens = Math.min(this.#retryTokens + RETRY_TOKENS_OF_SUCCESS, MAX_RETRY_TOKENS);
        return answer;
      } catch (failure) {
        const error = ShopError.of(failure);
        const pauseMs = FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.8 + 0.4 * Math.random());
        // An error that says when to come again is the caller's: trying earlier keeps an overloaded shop down.
        const isFinal =
          error.code !== Code.Unavailable || error.retryAfterMs !== undefined || attempt >= this.#maxAttempts;
        if (error.code === Code.Unavailable) {
          this.#retryTokens = Math.max(this.#retryTokens - 1, 0);
        }
        const isThrottled = this.#retryTokens <= MAX_RETRY_TOKENS / 2;
        if (isFinal || isThrottled || performance.now() + pauseMs >= endsAtMs) {
          throw error;
        }
        await sleep(pauseMs, signal);
      }
    }
  }
}

/** Return the request with a new `requestId`, if its type has that field and it is empty. */
function withRequestId<I extends DescMessage>(schema: I, input: MessageInitShape<I>): MessageShape<I> {
  const message = create(schema, input);
  const field = schema.fields.find((each) => each.name === "request_id");
  if (!field || reflect(schema, message).isSet(field)) {
    return message;
  }
  // A copy, because sending the same object twice on purpose makes two requests.
  const copy = clone(schema, message);
  reflect(schema, copy).set(field, crypto.randomUUID());
  return copy;
}

async function* failing<M>(messages: AsyncIterable<M>, asError: (failure: unknown) => ShopError): AsyncGenerator<M> {
  try {
    yield* messages;
  } catch (failure) {
    throw asError(failure);
  }
}
