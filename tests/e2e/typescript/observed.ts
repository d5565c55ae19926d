/** What a client sends, and faults of the network and of the clock between it and the shop. */

export interface Sent {
  readonly rpc: string;
  readonly headers: Headers;
  readonly body: string;
}

export type Fault = (sent: Sent, go: () => Promise<Response>, signal: AbortSignal | undefined) => Promise<Response>;

/** A `fetch` that keeps what it sends, and lets a fault take the place of an answer. */
export class Network {
  readonly sent: Sent[] = [];
  fault: Fault = (_, go) => go();

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const headers = new Headers(init?.headers);
    const body = String(init?.body);
    const sent = { rpc: String(input).split("/").pop() ?? "", headers, body };
    this.sent.push(sent);
    return this.fault(sent, () => globalThis.fetch(input, { ...init, headers }), init?.signal ?? undefined);
  };

  count(rpc: string): number {
    return this.sent.filter((each) => each.rpc === rpc).length;
  }
}

/** Let the clocks of this page or process be ahead from now on. */
export function advanceClock(byMs: number): void {
  const [steady, wall] = [performance.now.bind(performance), Date.now.bind(Date)];
  performance.now = () => steady() + byMs;
  Date.now = () => wall() + byMs;
}

/** Return the response with a body that fails after its first chunk, or with no second chunk ever. */
export function broken(response: Response, how: "cut" | "silent"): Response {
  const reader = response.body?.getReader();
  let chunks = 0;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      chunks++;
      const read = chunks === 1 ? await reader?.read() : undefined;
      if (read?.value) {
        controller.enqueue(read.value);
      } else if (how === "cut") {
        await reader?.cancel();
        controller.error(new TypeError("the network is gone"));
      } else {
        await new Promise(() => undefined);
      }
    },
  });
  return new Response(body, response);
}
