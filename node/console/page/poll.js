// Asks again and again: at an even pace while answers come, ever more slowly while they don't, and not at all while
// nobody looks.

const SLOWEST_MS = 60_000;

export class Poll {
  /** `work(signal)` does it once; `failed(error, retryMs)` is told when it throws. */
  constructor(work, failed, everyMs = 3000) {
    this.work = work;
    this.failed = failed;
    this.everyMs = everyMs;
    this.failures = 0;
    this.again = false;
    this.stopping = new AbortController();
    this.seen = () => !document.hidden && this.now();
    document.addEventListener('visibilitychange', this.seen, { signal: this.stopping.signal });
  }

  /** Ask at once, also in the middle of a pause. */
  async now() {
    clearTimeout(this.timer);
    this.again = this.busy;
    if (this.busy || this.stopping.signal.aborted) return;
    this.busy = true;
    let waitMs = this.everyMs;
    try {
      await this.work(this.stopping.signal);
      this.failures = 0;
    } catch (error) {
      if (this.stopping.signal.aborted) return;
      this.failures += 1;
      // Drawn anew each time, so that many pages don't come back to a node in step.
      waitMs = Math.min(SLOWEST_MS, this.everyMs * 2 ** this.failures) * (0.75 + Math.random() / 2);
      this.failed(error, waitMs);
    } finally {
      this.busy = false;
    }
    // Whoever asked meanwhile had changed what to ask for.
    if (!document.hidden) this.timer = setTimeout(() => this.now(), this.again ? 0 : waitMs);
  }

  stop() {
    clearTimeout(this.timer);
    this.stopping.abort();
  }
}
