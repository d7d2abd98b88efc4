//! What the server, this client and the rest of the machine have used, from /proc and the server's
//! control group.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::figures::{Figures, milliseconds};

/// Where the server's account is kept.
pub(crate) struct Meter {
    pid: Option<u32>,
    cpu: Option<PathBuf>,
}

/// All accounts at one moment.
pub(crate) struct Reading {
    at: Instant,
    server: Duration,
    client: Duration,
    machine: Duration,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub wall: Duration,
    /// The control group's CPU time, else the process's.
    pub server: Duration,
    pub client: Duration,
    /// CPU time of everything that is neither: it disturbed the run.
    pub others: Duration,
}

impl Meter {
    pub(crate) fn new(pid: Option<u32>, cpu: Option<PathBuf>) -> Self {
        Self { pid, cpu }
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        let server = match (&self.cpu, self.pid) {
            (Some(file), _) => group_cpu(file)?,
            (None, Some(pid)) => process_cpu(&pid.to_string())?,
            (None, None) => Duration::ZERO,
        };
        Ok(Reading { at: Instant::now(), server, client: process_cpu("self")?, machine: machine_cpu()? })
    }

    /// Resident memory of the server in MiB.
    pub(crate) fn resident_mib(&self) -> Result<Option<f64>> {
        let Some(pid) = self.pid else { return Ok(None) };
        let status = proc_file(&format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(Some(kib / 1024.0))
    }
}

impl Reading {
    pub(crate) fn since(&self, before: &Self) -> Used {
        let server = self.server.saturating_sub(before.server);
        let client = self.client.saturating_sub(before.client);
        let machine = self.machine.saturating_sub(before.machine);
        Used { wall: self.at - before.at, server, client, others: machine.saturating_sub(server + client) }
    }
}

impl Used {
    /// Sets what the server and the client used for each of `count` things, and how far others disturbed.
    pub(crate) fn set_figures(&self, figures: &mut Figures, count: f64) {
        let cores = |time: Duration| time.as_secs_f64() / self.wall.as_secs_f64();
        figures.set("server_cpu_ms", milliseconds(self.server) / count);
        figures.set("client_cpu_ms", milliseconds(self.client) / count);
        figures.set("server_cores", cores(self.server));
        figures.set("client_cores", cores(self.client));
        figures.set("other_cores", cores(self.others));
    }
}

fn proc_file(path: &str) -> Result<String> {
    read_to_string(path).with_context(|| path.to_owned())
}

/// cgroup v1's cpuacct.usage (nanoseconds) or v2's cpu.stat.
fn group_cpu(file: &Path) -> Result<Duration> {
    let text = read_to_string(file).with_context(|| file.display().to_string())?;
    let usage = match text.lines().find_map(|l| l.strip_prefix("usage_usec ")) {
        Some(microseconds) => Duration::from_micros(microseconds.parse()?),
        None => Duration::from_nanos(text.trim().parse()?),
    };
    Ok(usage)
}

/// User and system time, to the 10 ms that the kernel's interface knows.
fn process_cpu(pid: &str) -> Result<Duration> {
    let stat = proc_file(&format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks; utime and stime are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    sum_ticks(fields.split_whitespace().skip(11).take(2))
}

/// Everything but idle and waiting for the disk.
fn machine_cpu() -> Result<Duration> {
    let stat = proc_file("/proc/stat")?;
    let fields: Vec<&str> = stat.lines().next().unwrap_or_default().split_whitespace().collect();
    // cpu user nice system idle iowait irq softirq
    sum_ticks([1, 2, 3, 6, 7].into_iter().filter_map(|at| fields.get(at).copied()))
}

fn sum_ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Duration> {
    /// USER_HZ is 100 on every architecture that we run on.
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = 0;
    for field in fields {
        ticks += field.parse::<u32>()?;
    }
    Ok(TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_control_group_are_read() {
        let directory = std::env::temp_dir().join(format!("kload-usage-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let rows = [("1500000\n", 1_500), ("usage_usec 2500\nuser_usec 2000\nsystem_usec 500\n", 2_500)];
        for (text, microseconds) in rows {
            let file = directory.join("usage");
            std::fs::write(&file, text).unwrap();
            assert_eq!(group_cpu(&file).unwrap(), Duration::from_micros(microseconds));
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn others_are_what_neither_server_nor_client_used() {
        let at = Instant::now();
        let reading = |seconds, server, client, machine| Reading {
            at: at + Duration::from_secs(seconds),
            server: Duration::from_millis(server),
            client: Duration::from_millis(client),
            machine: Duration::from_millis(machine),
        };
        let used = reading(2, 150, 70, 1_500).since(&reading(0, 100, 50, 1_000));
        assert_eq!((used.wall, used.others), (Duration::from_secs(2), Duration::from_millis(430)));
    }
}
