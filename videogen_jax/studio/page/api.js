/** The server's HTTP interface, and what happens while the server is away. */

const API = "/api/v1";
const AWAY = "The connection to the studio is lost. Trying again…";

/** A failed request; `message` is the server's sentence, `status` the HTTP status, 0 if there was no response. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Sends a request with `json`, or `body` and its `type`. Returns the JSON of the response, or throws an ApiError. */
export async function api(path, {method = "GET", json, body, type} = {}) {
  let response;
  try {
    response = await fetch(API + path, {
      method,
      body: json === undefined ? body : JSON.stringify(json),
      headers: json === undefined ? (type ? {"Content-Type": type} : {}) : {"Content-Type": "application/json"},
    });
  } catch {
    connection.lost();
    throw new ApiError("The studio cannot be reached; it may be restarting.", 0);
  }
  const isJson = response.status !== 204 && response.headers.get("Content-Type")?.includes("json");
  const content = isJson ? await response.json() : null;
  if (!response.ok)
    throw new ApiError(content?.error ?? `The server answered with an error (${response.status}).`, response.status);
  return content;
}

/**
 * Tracks whether the server responds. After `lost()` it polls, less and less often, and calls the `onBack` listeners
 * once there is a response; `onNotice` receives the sentence to show, or null.
 */
class Connection {
  constructor() {
    this.away = false;
    this.waiting = [];
    this.onNotice = () => {};
  }

  onBack(listener) {
    this.waiting.push(listener);
  }

  async lost() {
    if (this.away) return;
    this.away = true;
    this.onNotice(AWAY);
    for (let wait = 1000; !(await this.answers()); wait = Math.min(wait * 1.5, 10000)) {
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    this.away = false;
    this.onNotice(null);
    for (const listener of this.waiting) listener();
  }

  async answers() {
    try {
      await fetch("/healthz", {cache: "no-store"});
      return true;
    } catch {
      return false;
    }
  }
}

export const connection = new Connection();

/**
 * Follows a job: `onJob` receives its every state, `onEnd` is called once if the stream breaks off. Returns a function
 * that stops following.
 */
export function follow(id, onJob, onEnd) {
  const source = new EventSource(`${API}/jobs/${encodeURIComponent(id)}/events`);
  source.onmessage = (event) => onJob(JSON.parse(event.data));
  source.onerror = () => {
    source.close();
    onEnd();
  };
  return () => source.close();
}
