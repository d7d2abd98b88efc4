//! Reads what a cgroup uses.

use std::fs;
use std::path::Path;

use crate::error::{IoContext, Result};
use crate::types::Stats;

pub(super) fn v1(cpuacct: &Path, memory: &Path, pids: &Path, now_ns: i64) -> Result<Stats> {
    let usage = number(&memory.join("memory.usage_in_bytes"))?;
    Ok(Stats {
        timestamp_ns: now_ns,
        cpu_usage_ns: number(&cpuacct.join("cpuacct.usage"))?,
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(key(&memory.join("memory.stat"), "total_inactive_file")?),
        pids: number(&pids.join("pids.current"))?,
        rootfs_used_bytes: None,
    })
}

pub(super) fn v2(dir: &Path, now_ns: i64) -> Result<Stats> {
    let usage = number(&dir.join("memory.current"))?;
    Ok(Stats {
        timestamp_ns: now_ns,
        cpu_usage_ns: key(&dir.join("cpu.stat"), "usage_usec")?.saturating_mul(1000),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(key(&dir.join("memory.stat"), "inactive_file")?),
        pids: number(&dir.join("pids.current"))?,
        rootfs_used_bytes: None,
    })
}

fn number(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file).at("read", file)?;
    Ok(text.trim().parse().unwrap_or(0))
}

fn key(file: &Path, name: &str) -> Result<u64> {
    Ok(keyed(&fs::read_to_string(file).at("read", file)?, name).unwrap_or(0))
}

/// The value of one line `name value`.
pub(super) fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
