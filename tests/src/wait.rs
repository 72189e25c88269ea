//! Waiting for something to become true: by asking, never by sleeping for as long as it usually takes.

use std::time::{Duration, Instant};

/// Between two questions: long enough to leave the processor to those who are asked.
const PAUSE: Duration = Duration::from_millis(15);

/// Nothing that a healthy cluster does takes longer, on a slow machine under load either.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The most that one question may take: that of a whole data set is one.
const ANSWER: Duration = Duration::from_secs(300);

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within `limit`, or a question gets none for minutes; `what` says what was waited for.
pub async fn until<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        let answered = tokio::time::timeout(ANSWER.max(limit), ask()).await;
        let answered = answered.unwrap_or_else(|_| panic!("a question hung for {} s: {what}", ANSWER.as_secs()));
        if let Some(answer) = answered {
            return answer;
        }
        assert!(Instant::now() < end, "waited {} s in vain: {what}", limit.as_secs());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the long run was asked for: `CALAMUS_TEST_LONG=1 cargo test -p calamus-tests`. The default share keeps the
/// whole of `cargo test --workspace` within 15 minutes on 2 cores, build included.
#[must_use]
pub fn long_run() -> bool {
    std::env::var_os("CALAMUS_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// One of two amounts: of the default share, or of the long run.
pub fn share<T>(default: T, long: T) -> T {
    if long_run() { long } else { default }
}
