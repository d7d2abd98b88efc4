//! The process kept small: few arenas, large blocks given back at once, a trim now and then. And how much memory
//! there is for it.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Threads beyond this share an arena; each arena keeps its own free lists and so its own waste.
const ARENAS: libc::c_int = 2;
/// Blocks from this size on are mapped by themselves and returned when freed.
const MMAP_THRESHOLD: libc::c_int = 128 * 1024;
/// A connection storm leaves a few MiB on the free lists; a trim costs about a millisecond.
const TRIM_EVERY: Duration = Duration::from_secs(300);
/// How often it is looked whether a trim cannot wait: a board has little memory, and others want it.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// What the process may have more than after its last trim.
const GROWN: u64 = 16 << 20;

/// Call once, before the first thread starts.
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
pub(crate) fn configure() {
    // SAFETY: no other thread exists yet; the options only change how memory is kept.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}

/// Trims shortly after the start, when what only set-up needed is most, and then rarely, or when much was taken.
pub(crate) async fn keep_trimmed(token: CancellationToken) {
    let (mut wait, mut left, mut trimmed) = (Duration::from_secs(10), Duration::ZERO, 0);
    while token.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        left = left.saturating_sub(wait);
        wait = LOOK_EVERY;
        if left.is_zero() || resident().is_none_or(|now| now > trimmed + GROWN) {
            runtime::trim_memory();
            (left, trimmed) = (TRIM_EVERY, resident().unwrap_or(0));
        }
    }
}

/// The process's own memory, without the pages of its files.
fn resident() -> Option<u64> {
    anonymous(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn anonymous(status: &str) -> Option<u64> {
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = anonymous.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The memory that this process may have: that of the machine, or the limit of a control group that it is in.
/// `None` where the machine does not say.
pub(crate) fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    available_to(&read("/proc/meminfo"), &read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
}

fn available_to(meminfo: &str, groups: &str, mounted: &Path) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(groups.lines().filter_map(|group| limit_of(group, mounted)).fold(total * 1024, u64::min))
}

/// The lowest limit of a group and those that it is in: a line is `0::/a/b`, or `9:memory:/a/b` in version 1.
fn limit_of(group: &str, mounted: &Path) -> Option<u64> {
    let mut fields = group.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (base, file) = match controllers {
        "" => (mounted.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|c| c == "memory") => (mounted.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let group = base.join(path.trim_start_matches('/'));
    // Without a limit there is a word, or no file.
    let limit = |group: &Path| std::fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    group.ancestors().take_while(|group| group.starts_with(&base)).filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_process_has_of_its_own_is_read() {
        assert_eq!(anonymous("VmRSS:\t   30000 kB\nRssAnon:\t   12345 kB\nRssFile:\t 1 kB\n"), Some(12_345 << 10));
        assert_eq!(anonymous("VmRSS:\t   30000 kB\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn the_lowest_limit_of_the_machine_and_the_groups_counts() {
        const MEMINFO: &str = "MemTotal:        1000 kB\nMemFree:         10 kB\n";
        let mounted = tempfile::tempdir().unwrap();
        let limit = |group: &str, file: &str, limit: &str| {
            fs::create_dir_all(mounted.path().join(group)).unwrap();
            fs::write(mounted.path().join(group).join(file), format!("{limit}\n")).unwrap();
        };
        let available = |groups: &str| available_to(MEMINFO, groups, mounted.path());
        limit("a/b", "memory.max", "max");
        assert_eq!(available("0::/a/b\n"), Some(1_024_000));
        limit("a", "memory.max", "700000");
        limit("other", "memory.max", "5");
        assert_eq!(available("0::/a/b\n"), Some(700_000));
        limit("a/b", "memory.max", "2000000");
        assert_eq!(available("0::/a/b\n"), Some(700_000));
        limit("memory/c", "memory.limit_in_bytes", "600000");
        assert_eq!(available("9:cpu:/a\n8:memory:/c\n0::/\n"), Some(600_000));
        assert_eq!(available(""), Some(1_024_000));
        assert_eq!(available_to("", "0::/a\n", mounted.path()), None);
    }
}
