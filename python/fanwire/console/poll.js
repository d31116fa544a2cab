// What is asked again and again: only while the page is visible, and never twice at once.

const AFTER_ERROR_MS = 3000;

/**
 * Calls `load(signal)` each `everyMs` milliseconds, and `done(data, error)` with what it gave.
 * Gives `again()`, which asks at once, and `close()`.
 */
export const poll = (load, everyMs, done) => {
  const over = new AbortController();
  let timer = 0;
  let asked = null;
  const again = async () => {
    clearTimeout(timer);
    asked?.abort();
    if (over.signal.aborted || document.hidden) return;
    const mine = (asked = new AbortController());
    let data = null;
    let error = null;
    try {
      data = await load(mine.signal);
    } catch (thrown) {
      error = thrown;
    }
    if (mine.signal.aborted) return;
    if (error?.status !== 401) timer = setTimeout(again, error ? Math.max(everyMs, AFTER_ERROR_MS) : everyMs);
    done(data, error);
  };
  document.addEventListener("visibilitychange", again, { signal: over.signal });
  window.addEventListener("unlocked", again, { signal: over.signal });
  again();
  return {
    again,
    close: () => {
      over.abort();
      clearTimeout(timer);
      asked?.abort();
    },
  };
};
