/**
 * Sends requests to the server, each with the token. A request fails in one of two ways: refused, or unanswered.
 */

const PATIENCE_MS = 10_000;

/** The server refused the request; sending it again would not help. */
export class Refused extends Error {
  /** @param {number} status @param {string} reason one line to show */
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** The server did not answer, or had an error of its own; sending the request again later may help. */
export class Away extends Error {}

/** The server's API for one token. Addresses are relative, so a proxy may add a folder. */
export class Api {
  /** @param {string} token */
  constructor(token) {
    this.token = token;
  }

  /** @param {string} path @returns {Promise<any>} */
  async get(path) {
    return (await this.#ask(path, {})).json();
  }

  /**
   * Send JSON. The browser completes the request even if the page is closed.
   * @param {string} path @param {object} body @returns {Promise<any>}
   */
  async post(path, body) {
    const headers = { "content-type": "application/json" };
    return (await this.#ask(path, { method: "POST", headers, body: JSON.stringify(body), keepalive: true })).json();
  }

  /** @param {string} path @returns {Promise<Blob>} */
  async blob(path) {
    const answer = await this.#ask(path, {}, 6 * PATIENCE_MS);
    return this.#read(() => answer.blob());
  }

  /** Download a file with the name that the server gives it. @param {string} path @returns {Promise<{blob: Blob, name: string}>} */
  async file(path) {
    const answer = await this.#ask(path, {}, 6 * PATIENCE_MS);
    const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "labels";
    return { blob: await this.#read(() => answer.blob()), name };
  }

  /** @param {string} path @param {RequestInit & {headers?: Record<string, string>}} options @param {number} patience */
  async #ask(path, options, patience = PATIENCE_MS) {
    const headers = { ...options.headers, authorization: `Bearer ${this.token}` };
    const signal = AbortSignal.timeout(patience);
    const answer = await this.#read(() => fetch(path, { ...options, headers, signal, cache: "no-store" }));
    if (answer.ok) return answer;
    const content = await answer.json().catch(() => ({}));
    const reason = typeof content.reason === "string" ? content.reason : `the server answered ${answer.status}`;
    // 408 and 429 ask to come back later, and 5xx is an error of the server.
    if (answer.status >= 500 || answer.status === 408 || answer.status === 429) throw new Away(reason);
    throw new Refused(answer.status, reason);
  }

  /** @template T @param {() => Promise<T>} read @returns {Promise<T>} */
  async #read(read) {
    try {
      return await read();
    } catch (error) {
      throw new Away(error instanceof Error ? error.message : String(error));
    }
  }
}
