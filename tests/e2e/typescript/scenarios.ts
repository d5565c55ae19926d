/** What callers do with the client. Each scenario returns facts, as JSON, which the Python test compares. */

import {
  type Client,
  Code,
  type ConnectOptions,
  connect,
  createClient,
  decimalOf,
  Login,
  money,
  pages,
  ShopError,
  watch,
} from "@shop/client";
import { type Order, type OrderJson, OrderService, OrderStatus } from "@shop/client/order/v1";
import { SessionService, UserService } from "@shop/client/user/v1";
import { advanceClock, broken, Network } from "./observed.js";

export interface World {
  readonly url: string;
  /** Where nothing listens. */
  readonly nowhere: string;
  /** A user who exists. */
  readonly email: string;
  readonly password: string;
}

type Orders = Client<typeof OrderService>;

function ordersOf({ url, email, password }: World, options: ConnectOptions = {}): Orders {
  return createClient(OrderService, connect(url, { token: new Login(email, password), ...options }));
}

function placeTea(orders: Orders, requestId = ""): Promise<Order> {
  return orders.createOrder(teaRequest(requestId));
}

function teaRequest(requestId = "") {
  const items = [{ productId: "tea-1", quantity: 2, unitPrice: money("4.50") }];
  return { currencyCode: "EUR", items, requestId };
}

async function refusalOf(call: Promise<unknown>) {
  try {
    await call;
  } catch (error) {
    if (error instanceof ShopError) {
      const { reason, domain, metadata, fields, message, mayPass } = error;
      return { code: Code[error.code], reason, domain, metadata, fields, message, mayPass };
    }
    throw error;
  }
  throw new Error("the call was not refused");
}

/** A user signs up, logs in, orders, lists, and sees an order of theirs change. */
export async function journey(world: World) {
  const { url } = world;
  const [email, password] = [`ada-${crypto.randomUUID()}@example.com`, "correct horse battery"];
  const user = await createClient(UserService, connect(url)).createUser({ email, password, displayName: "Ada" });
  const orders = ordersOf({ ...world, email, password });
  const seen: string[] = [];
  let first = "";
  for await (const message of watch(orders.watchOrders, {})) {
    if (!message.change) {
      // A heartbeat: from here on no change is missed.
      first = first || (await placeTea(orders)).id;
    } else if (message.change.orderId === first) {
      seen.push(`${OrderStatus[message.change.fromStatus]} ${OrderStatus[message.change.toStatus]}`);
      if (message.change.toStatus === OrderStatus.CANCELLED) {
        break;
      }
      await orders.cancelOrder({ id: first });
    }
  }
  for (let more = 0; more < 4; more++) {
    await placeTea(orders);
  }
  const sizes: number[] = [];
  for await (const page of pages(orders.listOrders, { pageSize: 2 })) {
    sizes.push(page.orders.length);
  }
  const order = await orders.getOrder({ id: first });
  return {
    name: user.displayName,
    isOwn: order.userId === user.id,
    total: order.totalAmount && decimalOf(order.totalAmount),
    seen,
    sizes,
  };
}

/** Calls that fail, each in its own way. */
export async function refusals(world: World) {
  const orders = ordersOf(world);
  const nobody = createClient(OrderService, connect(world.url));
  const item = { productId: " ", quantity: 0, unitPrice: money("1") };
  return {
    fields: await refusalOf(orders.createOrder({ currencyCode: "EUR", items: [item] })),
    currency: await refusalOf(
      orders.createOrder({
        currencyCode: "EUR",
        items: [{ ...item, productId: "tea-1", quantity: 1, unitPrice: money("1", "USD") }],
      }),
    ),
    absent: await refusalOf(orders.getOrder({ id: "00000000-0000-4000-8000-000000000000" })),
    role: await refusalOf(
      orders.updateOrderStatus({ id: "00000000-0000-4000-8000-000000000000", status: OrderStatus.CONFIRMED }),
    ),
    anonymous: await refusalOf(nobody.listOrders({})),
    password: await refusalOf(ordersOf({ ...world, password: "wrong horse battery" }).listOrders({})),
    resumeToken: await refusalOf(watch(orders.watchOrders, { resumeToken: crypto.randomUUID() }).next()),
  };
}

/** The error of a call that reaches no shop, and the id of one that does. */
export async function unreachable(world: World) {
  const nowhere = ordersOf({ ...world, url: world.nowhere }, { token: "none" });
  const { message: _, ...refusal } = await refusalOf(nowhere.listOrders({}));
  const error = await ordersOf(world, { token: "none" })
    .listOrders({})
    .catch((failure: unknown) => ShopError.of(failure));
  return { refusal, hasRequestId: error instanceof ShopError && /^[0-9a-f-]{36}$/.test(error.requestId) };
}

/** One object sent twice is two writes; one request id is one write. */
export async function repetitions(world: World) {
  const orders = ordersOf(world);
  const request = teaRequest();
  const apart = [await orders.createOrder(request), await orders.createOrder(request)];
  const id = crypto.randomUUID();
  const same = [await placeTea(orders, id), await placeTea(orders, id)];
  const other = { ...teaRequest(id), currencyCode: "USD" };
  return {
    apart: new Set(apart.map((each) => each.id)).size,
    same: new Set(same.map((each) => each.id)).size,
    isUntouched: request.requestId === "",
    reused: (await refusalOf(orders.createOrder(other))).reason,
  };
}

/** A call whose connection breaks is sent again, as the same write; only so often, and not if the shop names a time. */
export async function retries(world: World) {
  const network = new Network();
  const orders = ordersOf(world, { fetch: network.fetch });
  await orders.listOrders({});
  let failures = 2;
  network.fault = async (sent, go) => {
    if (sent.rpc !== "CreateOrder") {
      return go();
    }
    const response = await go();
    if (failures-- > 0) {
      throw new TypeError("the answer was lost");
    }
    return response;
  };
  await placeTea(orders);
  const tries = network.sent.filter((each) => each.rpc === "CreateOrder");
  const listed = await orders.listOrders({});
  failures = 3;
  const refusal = await refusalOf(placeTea(orders));
  return {
    tries: tries.length,
    bodies: new Set(tries.map((each) => each.body)).size,
    orders: listed.orders.length,
    triesInAll: network.count("CreateOrder"),
    code: refusal.code,
  };
}

/** While most calls fail, they are not tried again; when enough have succeeded, they are. */
export async function throttled(world: World) {
  const network = new Network();
  const orders = ordersOf(world, { fetch: network.fetch });
  const triesOfFailing = async () => {
    const before = network.count("GetOrder");
    await refusalOf(orders.getOrder({ id: "00000000-0000-4000-8000-000000000000" }));
    return network.count("GetOrder") - before;
  };
  await orders.listOrders({});
  network.fault = async (sent, go) => {
    if (sent.rpc === "GetOrder") {
      throw new TypeError("there is no connection");
    }
    return go();
  };
  const failing = [await triesOfFailing(), await triesOfFailing(), await triesOfFailing()];
  for (let call = 0; call < 30; call++) {
    await orders.listOrders({});
  }
  return { failing, recovered: await triesOfFailing() };
}

/** A call ends at its deadline, or when its caller aborts it. */
export async function deadlines(world: World) {
  const network = new Network();
  const orders = ordersOf(world, { fetch: network.fetch });
  await orders.listOrders({});
  network.fault = (_sent, _go, signal) =>
    new Promise((_resolve, reject) =>
      signal?.addEventListener("abort", () => reject(new DOMException("", "AbortError"))),
    );
  const late = await refusalOf(orders.listOrders({}, { timeoutMs: 200 }));
  const aborted = await refusalOf(orders.listOrders({}, { signal: AbortSignal.timeout(100) }));
  const before = await refusalOf(orders.listOrders({}, { signal: AbortSignal.abort() }));
  const [first] = network.sent.filter((each) => each.rpc === "ListOrders");
  return {
    timeoutS: Math.ceil(Number.parseInt(first?.headers.get("grpc-timeout") ?? "0", 10) / 1000),
    late: late.code,
    aborted: aborted.code,
    before: before.code,
  };
}

/** A timeout may be as long as a caller likes. */
export async function longTimeouts() {
  const network = new Network();
  network.fault = async () => {
    throw new TypeError("there is no connection");
  };
  const codes: string[] = [];
  for (const timeoutMs of [Number.POSITIVE_INFINITY, 2 ** 31, 1e30]) {
    const options = { token: "none", maxAttempts: 1, fetch: network.fetch };
    const orders = createClient(OrderService, connect("http://127.0.0.1:1", options));
    const bounded = createClient(OrderService, connect("http://127.0.0.1:1", { ...options, timeoutMs }));
    codes.push((await refusalOf(orders.listOrders({}, { timeoutMs }))).code);
    codes.push((await refusalOf(bounded.listOrders({}))).code);
    codes.push((await refusalOf(orders.watchOrders({}, { timeoutMs })[Symbol.asyncIterator]().next())).code);
  }
  return { codes, timeouts: network.sent.map((each) => each.headers.get("grpc-timeout")) };
}

/** The life of a session: one log-in for all, one renewal for all, and another log-in when the shop has ended it. */
export async function sessions(world: World) {
  const network = new Network();
  const transport = connect(world.url, { token: new Login(world.email, world.password), fetch: network.fetch });
  const orders = createClient(OrderService, transport);
  const counts = () =>
    `${network.count("CreateSession")} ${network.count("RefreshSession")} ${network.count("ListOrders")}`;
  const five = () => Promise.all(Array.from({ length: 5 }, () => orders.listOrders({})));
  await five();
  const loggedIn = counts();
  advanceClock(claimsOf(network).exp * 1000 - Date.now() - 30_000);
  await five();
  const renewed = counts();
  network.fault = (sent, go) => {
    if (network.count("ListOrders") === 11) {
      sent.headers.set("authorization", "Bearer of.another.shop");
    }
    return go();
  };
  await orders.listOrders({});
  const refused = counts();
  await createClient(SessionService, transport).deleteSession({ id: claimsOf(network).sid });
  advanceClock(60_000);
  await orders.listOrders({});
  return { loggedIn, renewed, refused, ended: counts() };
}

/** Return the claims of the access token that was sent last. */
function claimsOf(network: Network): { exp: number; sid: string } {
  const claims = network.sent.at(-1)?.headers.get("authorization")?.split(".")[1] ?? "";
  return JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/")));
}

/** A token that its caller gives is sent as it is, and not repeated when it is refused. */
export async function tokens(world: World) {
  const network = new Network();
  const given = ordersOf(world, { token: async () => "of.another.shop", fetch: network.fetch });
  const refusal = await refusalOf(given.listOrders({}));
  return { reason: refusal.reason, sent: network.count("ListOrders") };
}

/** A watch whose connection breaks continues after its last message. */
export async function brokenWatch(world: World) {
  const quick = globalThis.setTimeout;
  const network = new Network();
  const orders = ordersOf(world, { fetch: network.fetch });
  const others = ordersOf(world);
  let how: "cut" | "silent" = "cut";
  let signal: AbortSignal | undefined;
  network.fault = async (sent, go, given) => {
    signal = sent.rpc === "WatchOrders" ? given : signal;
    const response = await go();
    return sent.rpc === "WatchOrders" && network.count("WatchOrders") < 3 ? broken(response, how) : response;
  };
  // The longest silence of a stream, in less time.
  const hurried = (run: () => void, ms?: number, ...given: unknown[]) =>
    quick(run, ms === 60_000 ? 1_500 : ms, ...given);
  globalThis.setTimeout = Object.assign(hurried, quick);
  const placed: string[] = [];
  const told: string[] = [];
  for await (const message of watch(orders.watchOrders, {})) {
    if (message.change) {
      told.push(message.change.orderId);
    }
    if (placed.length < 3) {
      // The stream is broken after its first message, so this change comes by the next one.
      how = network.count("WatchOrders") === 1 ? "silent" : how;
      placed.push((await placeTea(others)).id);
    }
    if (told.length === 3) {
      break;
    }
  }
  globalThis.setTimeout = quick;
  return { streams: network.count("WatchOrders"), isAll: placed.join() === told.join(), isClosed: signal?.aborted };
}

/** A watch ends with its signal, and with its patience. */
export async function endedWatch(world: World) {
  const orders = ordersOf(world);
  const controller = new AbortController();
  const stream = watch(orders.watchOrders, {}, { signal: controller.signal });
  await stream.next();
  const next = refusalOf(stream.next());
  controller.abort();
  const nowhere = createClient(OrderService, connect(world.nowhere, { token: "none" }));
  const began = performance.now();
  const impatient = await refusalOf(watch(nowhere.watchOrders, {}, { patienceMs: 700 }).next());
  return { aborted: (await next).code, impatient: impatient.code, isInTime: performance.now() - began < 5_000 };
}

/** REST by fetch, with the types of the same contract. */
export async function rest({ url, email, password }: World) {
  const send = (path: string, token: string, body?: object) =>
    fetch(`${url}/api/v1${path}`, {
      method: body ? "POST" : "GET",
      headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) },
      ...(body && { body: JSON.stringify(body) }),
    });
  const session = await createClient(SessionService, connect(url)).createSession({ email, password });
  const items = [{ productId: "tea-1", quantity: 1, unitPrice: { units: "4", nanos: 500_000_000 } }];
  const created = await send("/orders", session.accessToken, { currencyCode: "EUR", items });
  const order: OrderJson = await created.json();
  const absent = await send("/orders/00000000-0000-4000-8000-000000000000", session.accessToken);
  const wrong = await send("/orders", session.accessToken, { currencyCode: "EUR", items: [] });
  const strange = new Response("<html>Bad gateway</html>", { status: 502 });
  const told = async (response: Response) => refusalOf(Promise.reject(await ShopError.ofResponse(response)));
  return {
    status: order.status,
    total: order.totalAmount?.units,
    absent: await told(absent),
    wrong: (await told(wrong)).fields.map((each) => each.field),
    strange: (await told(strange)).code,
  };
}

/** Errors of a proxy or of another server, which are none of the shop's. */
export async function foreignErrors() {
  const bodies = [
    "<html>Bad gateway</html>",
    "",
    "null",
    "[]",
    "{}",
    '"Service Unavailable"',
    '{"message":"Service Unavailable"}',
    '{"code":0,"message":"OK"}',
    '{"code":404,"message":"x"}',
    '{"code":17,"message":"x"}',
    '{"code":-1,"message":"x"}',
    '{"code":"NOT_FOUND","message":"x"}',
    '{"error":"upstream"}',
    '{"code":5,"message":"x","details":[{"reason":"none"}]}',
    '{"code":5,"message":"x","details":[{"@type":"type.example.com/none.such"}]}',
  ];
  const facts: string[] = [];
  for (const status of [503, 404]) {
    for (const body of bodies) {
      const { code, message, mayPass } = await ShopError.ofResponse(new Response(body, { status }));
      facts.push(`${Code[code]} ${mayPass}: ${message}`);
    }
  }
  const own = await ShopError.ofResponse(new Response('{"code":16,"message":"x","more":1}', { status: 401 }));
  return { foreign: [...new Set(facts)], own: Code[own.code] };
}

/** Amounts, to and from text. */
export async function amounts() {
  const texts = ["4.50", "0", "-0.000000001", "9223372036854775807.999999999", "12", "-3.25"];
  const wrong = ["", "1.", ".5", "1e3", "0.0000000001", "1,5", "--1", "NaN", "9223372036854775808"];
  const isRefused = (text: string) => {
    try {
      money(text);
      return false;
    } catch (error) {
      return error instanceof RangeError;
    }
  };
  const { units, nanos, currencyCode } = money("-3.25", "EUR");
  return {
    round: texts.map((text) => decimalOf(money(text))),
    parts: `${units} ${nanos} ${currencyCode}`,
    refused: wrong.filter(isRefused).length === wrong.length,
  };
}
