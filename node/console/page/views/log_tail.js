// What a task writes, as it comes: a long poll after another, the newest part kept.

import { render } from '../dom.js';

const KEPT_CHARACTERS = 256 * 1024;
const PIECE_BYTES = 256 * 1024;
const WAIT_S = 20;
const RETRY_MS = 3000;

export class LogTail {
  constructor(context, id) {
    this.context = context;
    this.path = `/v1/jobs/${encodeURIComponent(id)}/logs`;
    this.task = null;
    this.stream = 'both';
    this.follow = true;
    this.text = '';
    this.state = '';
    this.reading = null;
  }

  /** Begin with this task, unless one is shown already. */
  start(task) {
    if (this.task !== null) return;
    this.task = task;
    this.read();
  }

  change(what) {
    const restart = 'task' in what || 'stream' in what || what.follow;
    Object.assign(this, what);
    if (restart) this.read();
  }

  stop() {
    this.reading?.abort();
  }

  async read() {
    this.stop();
    const reading = (this.reading = new AbortController());
    const decoder = new TextDecoder();
    let text = '';
    let offset = '0';
    let ended = false;
    this.show('', 'reading');
    while (!ended && !reading.signal.aborted) {
      try {
        const answer = await this.piece(offset, reading.signal);
        const data = await answer.arrayBuffer();
        offset = answer.headers.get('x-next-offset') ?? offset;
        ended = answer.headers.get('x-ended') === '1';
        text = (text + decoder.decode(data, { stream: true })).slice(-KEPT_CHARACTERS);
        if (data.byteLength || ended) this.show(text, ended ? 'ended' : 'following');
        // Read up to here, and nothing asks to be told of more.
        if (!this.follow && !data.byteLength) break;
      } catch (error) {
        if (reading.signal.aborted) return;
        this.show(text, error.message);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    if (!ended && !reading.signal.aborted) this.show(text, 'not followed');
  }

  piece(offset, signal) {
    const query = new URLSearchParams({
      task: this.task, stream: this.stream, offset, limit: PIECE_BYTES, wait_s: this.follow ? WAIT_S : 0,
    });
    return this.context.api.ask('GET', `${this.path}?${query}`, { signal, timeoutMs: (WAIT_S + 20) * 1000 });
  }

  show(text, state) {
    Object.assign(this, { text, state });
    this.paint();
  }

  /** Bring the page up to what was read; the view calls this when it has drawn itself. */
  paint() {
    const log = document.getElementById('log');
    if (!log) return;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    render(log, this.text);
    render(document.getElementById('log-state'), this.state);
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}
