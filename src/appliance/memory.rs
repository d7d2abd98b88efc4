//! The process kept small: few arenas, large blocks given back at once, a trim now and then.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Threads beyond this share an arena; each arena keeps its own free lists and so its own waste.
const ARENAS: libc::c_int = 2;
/// Blocks from this size on are mapped by themselves and returned when freed.
const MMAP_THRESHOLD: libc::c_int = 128 * 1024;
/// A connection storm leaves a few MiB on the free lists; a trim costs about a millisecond.
const TRIM_EVERY: Duration = Duration::from_secs(300);

/// Call once, before the first thread starts.
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
pub(crate) fn configure() {
    // SAFETY: no other thread exists yet; the options only change how memory is kept.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}

/// Trims shortly after the start, when what only set-up needed is most, and then rarely.
pub(crate) async fn keep_trimmed(token: CancellationToken) {
    let mut wait = Duration::from_secs(10);
    while token.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        runtime::trim_memory();
        wait = TRIM_EVERY;
    }
}
