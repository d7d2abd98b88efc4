//! Reads what a cgroup uses.

use std::fs;
use std::path::Path;

use crate::error::{IoContext, Result};
use crate::types::Stats;

pub(super) fn v1(cpuacct: &Path, memory: &Path, pids: &Path, now_ns: i64) -> Result<Stats> {
    let usage = number(&memory.join("memory.usage_in_bytes"))?;
    let stat = text(&memory.join("memory.stat"))?;
    let of = |name: &str| keyed(&stat, name).unwrap_or(0);
    Ok(Stats {
        timestamp_ns: now_ns,
        cpu_usage_ns: number(&cpuacct.join("cpuacct.usage"))?,
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(of("total_inactive_file")),
        memory_rss_bytes: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        swap_usage_bytes: keyed(&stat, "total_swap"),
        pids: number(&pids.join("pids.current"))?,
    })
}

pub(super) fn v2(dir: &Path, now_ns: i64) -> Result<Stats> {
    let usage = number(&dir.join("memory.current"))?;
    let stat = text(&dir.join("memory.stat"))?;
    let of = |name: &str| keyed(&stat, name).unwrap_or(0);
    Ok(Stats {
        timestamp_ns: now_ns,
        cpu_usage_ns: keyed(&text(&dir.join("cpu.stat"))?, "usage_usec").unwrap_or(0).saturating_mul(1000),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(of("inactive_file")),
        memory_rss_bytes: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        // Without swap in the kernel there is no such file.
        swap_usage_bytes: number(&dir.join("memory.swap.current")).ok(),
        pids: number(&dir.join("pids.current"))?,
    })
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).at("read", file)
}

fn number(file: &Path) -> Result<u64> {
    Ok(text(file)?.trim().parse().unwrap_or(0))
}

/// The value of one line `name value`.
pub(super) fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
