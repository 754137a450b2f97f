// The node's HTTP API. The token travels in a header alone: it is in no address, and so in no history and no log.

const TIMEOUT_MS = 20_000;

/** What the API refused, or why it was not reached (status 0). */
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Api {
  constructor(token) {
    this.token = token;
  }

  /** Return the JSON of an answer, and the nodes that gave none. */
  async get(path, { signal } = {}) {
    const answer = await this.ask('GET', path, { signal });
    const missing = (answer.headers.get('x-fofoca-missing') ?? '').split(',').filter(Boolean);
    return { data: await answer.json(), missing };
  }

  /** Order something; return the JSON of the answer. */
  async order(method, path) {
    return (await this.ask(method, path)).json();
  }

  /** Return an answer that is not an error; ApiError. */
  async ask(method, path, { signal, timeoutMs = TIMEOUT_MS } = {}) {
    const signals = [AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])];
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    let answer;
    try {
      answer = await fetch(path, {
        method, headers, signal: AbortSignal.any(signals), cache: 'no-store', credentials: 'omit', redirect: 'error',
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, error.name === 'TimeoutError' ? 'the node did not answer in time' : 'the node is not reached');
    }
    if (!answer.ok) throw new ApiError(answer.status, await detailOf(answer));
    return answer;
  }
}

async function detailOf(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `the node answered with status ${answer.status}`;
  }
}
