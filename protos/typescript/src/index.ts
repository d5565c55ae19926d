/**
 * The client of the shop. Services and messages are beside it, by their package in the contract:
 *
 *     import { connect, createClient, Login, ShopError } from "@shop/client";
 *     import { OrderService } from "@shop/client/order/v1";
 *
 *     const orders = createClient(OrderService, connect("https://shop.example", { token: new Login(email, password) }));
 */

export { type CallOptions, type Client, Code, createClient, type Transport } from "@connectrpc/connect";
export { type ConnectOptions, connect, type Token } from "./connect.js";
export { type FieldViolation, ShopError } from "./errors.js";
export { type Money, type MoneyJson, MoneySchema } from "./google/type/money_pb.js";
export { Login } from "./login.js";
export { decimalOf, money } from "./money.js";
export { pages } from "./pages.js";
export { type WatchOptions, watch } from "./watch.js";
