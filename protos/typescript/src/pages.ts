/** The pages of a list. */

import type { CallOptions } from "@connectrpc/connect";

/**
 * Yield every page of a list; each page is one call: `for await (const page of pages(orders.listOrders, {})) …`
 *
 * @param rpc a method of a client, whose request has a `pageToken`.
 * @param request the filter and the size of the pages; with a `pageToken` the pages begin there. It is not changed.
 * @throws ShopError a call failed. To continue, list again with the token of the last page.
 */
export async function* pages<Request extends { pageToken?: string }, Page extends { nextPageToken: string }>(
  rpc: (request: Request, options?: CallOptions) => Promise<Page>,
  request: NoInfer<Request>,
  options?: CallOptions,
): AsyncGenerator<Page, void, undefined> {
  for (let next = request; ; ) {
    const page = await rpc(next, options);
    yield page;
    if (!page.nextPageToken) {
      return;
    }
    next = { ...next, pageToken: page.nextPageToken };
  }
}
