/** A stream of changes that goes on: it is opened again after the last message, whatever ended it. */

import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";
import { REFUSED_TOKEN, ShopError } from "./errors.js";
import { sleep } from "./waiting.js";

// The contract: while nothing changes, a heartbeat comes every 15 s; a stream without a message for 60 s is broken.
const SILENCE_MS = 60_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 30_000;

export interface WatchOptions {
  /** How long tries may fail, without a message in between, before the last error is thrown: 300,000 ms. */
  readonly patienceMs?: number;
  /** Ends the watch with a ShopError of code CANCELED. Leaving the loop ends it too. */
  readonly signal?: AbortSignal;
}

interface WatchMessage {
  readonly resumeToken: string;
  readonly end?: object | undefined;
}

/**
 * Yield the messages of a stream, each once and in order; open the stream again when it ends.
 *
 * A message without a `change` is a heartbeat: the first comes at once, and what is listed after it misses no change.
 * Each message has the `resumeToken` from which a later watch() continues. The pauses between two tries grow from 0.2 s
 * to 30 s, or are as long as the shop says.
 *
 * @param rpc a method of a client: `orders.watchOrders`.
 * @param request the filter, and the token to begin after. It is not changed.
 * @throws ShopError trying again does not help, as with RESUME_TOKEN_EXPIRED or ROLE_REQUIRED, or the patience has ended.
 */
export async function* watch<Request extends { resumeToken?: string }, Message extends WatchMessage>(
  rpc: (request: Request, options?: CallOptions) => AsyncIterable<Message>,
  request: NoInfer<Request>,
  options: WatchOptions = {},
): AsyncGenerator<Message, void, undefined> {
  const reopening = new Reopening(request.resumeToken ?? "", options.patienceMs ?? 300_000);
  for (;;) {
    let endedBy = new ShopError(new ConnectError("The stream has ended.", Code.Unavailable));
    try {
      const next: Request = { ...request, resumeToken: reopening.resumeToken };
      for await (const message of stream((signal) => rpc(next, { signal }), options.signal)) {
        // The stream's status, which follows, says the same as `end`.
        if (!message.end) {
          reopening.heard(message.resumeToken);
          yield message;
        }
      }
    } catch (failure) {
      endedBy = ShopError.of(failure);
    }
    await sleep(reopening.pauseMs(endedBy), options.signal);
  }
}

/** Where the next stream begins, and when. */
class Reopening {
  resumeToken: string;
  readonly #patienceMs: number;
  #failures = 0;
  #failingSinceMs = 0;
  #wasRefused = false;

  constructor(resumeToken: string, patienceMs: number) {
    this.resumeToken = resumeToken;
    this.#patienceMs = patienceMs;
  }

  heard(resumeToken: string): void {
    this.resumeToken = resumeToken;
    this.#failures = 0;
    this.#wasRefused = false;
  }

  /** Return how long to wait before the stream is opened again; throw the error if that does not help. */
  pauseMs(error: ShopError): number {
    // A stream ends when its access token expires, and is refused when the key of the token was withdrawn: the next one
    // is opened with another token, if there is one.
    const isRefused = REFUSED_TOKEN.includes(error.reason) && !this.#wasRefused;
    if (!error.mayPass && !isRefused) {
      throw error;
    }
    this.#wasRefused = isRefused;
    // An error knows the position better than the last message: it may have passed changes of others.
    this.resumeToken = error.metadata.resumeToken || this.resumeToken;
    if (this.#failures === 0) {
      this.#failingSinceMs = performance.now();
    }
    const longestMs = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures, LONGEST_PAUSE_MS);
    this.#failures = Math.min(this.#failures + 1, 16);
    // At random, because a replica that stops ends the streams of all its callers at once.
    const pauseMs = (error.retryAfterMs ?? 0) + longestMs * (0.5 + Math.random() / 2);
    if (performance.now() + pauseMs - this.#failingSinceMs > this.#patienceMs) {
      throw error;
    }
    return pauseMs;
  }
}

/** Yield the messages of one stream until it ends; cancel it if it is silent, or not read to its end. */
async function* stream<Message>(
  open: (signal: AbortSignal) => AsyncIterable<Message>,
  given: AbortSignal | undefined,
): AsyncGenerator<Message> {
  const silence = new AbortController();
  const signal = given ? AbortSignal.any([given, silence.signal]) : silence.signal;
  const messages = open(signal)[Symbol.asyncIterator]();
  try {
    for (;;) {
      // Its caller may take any time over a message: only the wait for the next one is silence.
      const timer = setTimeout(() => silence.abort(), SILENCE_MS);
      const result = await messages.next().finally(() => clearTimeout(timer));
      if (result.done) {
        return;
      }
      yield result.value;
    }
  } catch (failure) {
    if (silence.signal.aborted) {
      throw new ShopError(new ConnectError(`The stream had no message for ${SILENCE_MS / 1000} s.`, Code.Unavailable));
    }
    throw failure;
  } finally {
    silence.abort();
  }
}
