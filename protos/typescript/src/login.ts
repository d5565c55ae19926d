/**
 * Sessions of a client: they log in, and renew their tokens in time.
 *
 * A refresh token works once, so a renewal is made by one caller and awaited by all others. If the answer of a renewal is
 * lost, the next one sends the same refresh token: within 10 s the shop returns the same successor, later it ends the
 * session, and the client logs in again.
 */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { ShopError } from "./errors.js";
import { type Session, SessionService } from "./shop/user/v1/session_service_pb.js";

// A token is renewed when it has this much of its time left, but at most 60 s: the longest that a call may take.
const MARGIN = 0.25;
const LONGEST_MARGIN_MS = 60_000;
// A machine whose clock is ahead believes that every token has expired. It must not renew one for each call.
const SHORTEST_USE_MS = 5_000;

/** The credentials of a user, for the `token` of connect(): its first call logs in. */
export class Login {
  readonly email: string;
  readonly #password: string;

  constructor(email: string, password: string) {
    this.email = email;
    this.#password = password;
  }

  /** Return the request that begins a session. */
  request(): { email: string; password: string } {
    return { email: this.email, password: this.#password };
  }
}

/** Where a transport gets its access tokens. */
export interface TokenSource {
  /** Return an access token. */
  token(): Promise<string>;
  /** Do not return this token again, with which a call was refused; return whether another one can be had. */
  refuse(token: string): boolean;
}

/** The tokens of a session that begins with the first call. */
export class LoginSession implements TokenSource {
  readonly #login: Login;
  readonly #sessions: Client<typeof SessionService>;
  #session: Session | undefined;
  #renewAtMs = 0;
  #expiresAtMs = 0;
  #renewing: Promise<string> | undefined;

  /** @param transport makes the calls of SessionService, which need no token. */
  constructor(login: Login, transport: Transport) {
    this.#login = login;
    this.#sessions = createClient(SessionService, transport);
  }

  async token(): Promise<string> {
    if (this.#session && performance.now() < this.#renewAtMs) {
      return this.#session.accessToken;
    }
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  refuse(token: string): boolean {
    // If it is not the current one, it has been renewed already.
    if (this.#session?.accessToken === token) {
      this.#renewAtMs = 0;
      this.#expiresAtMs = 0;
    }
    return true;
  }

  async #renew(): Promise<string> {
    const session = this.#session;
    if (session) {
      try {
        return this.#keep(await this.#sessions.refreshSession({ refreshToken: session.refreshToken }));
      } catch (failure) {
        const error = ShopError.of(failure);
        if (error.mayPass && performance.now() < this.#expiresAtMs) {
          return session.accessToken;
        }
        if (error.mayPass) {
          throw error;
        }
        this.#session = undefined; // the shop has ended it
      }
    }
    return this.#keep(await this.#sessions.createSession(this.#login.request()));
  }

  #keep(session: Session): string {
    const expiresAtMs = session.accessExpiresAt ? timestampMs(session.accessExpiresAt) : 0;
    const lifetimeMs = Math.max(expiresAtMs - Date.now(), 0);
    const useMs = lifetimeMs - Math.min(lifetimeMs * MARGIN, LONGEST_MARGIN_MS);
    this.#session = session;
    this.#renewAtMs = performance.now() + Math.max(useMs, SHORTEST_USE_MS);
    this.#expiresAtMs = performance.now() + lifetimeMs;
    return session.accessToken;
  }
}
