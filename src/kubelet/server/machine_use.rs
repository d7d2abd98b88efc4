//! What the whole machine uses, from /proc. Parsing is pure.

use std::fs;

use serde_json::{Value, json};

use crate::node::meminfo;

/// The whole machine's use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MachineUse {
    pub(super) cpu_ns: u64,
    pub(super) memory_available: i64,
    pub(super) memory_free: i64,
    pub(super) memory_anonymous: i64,
    pub(super) swap_free: i64,
    pub(super) page_faults: u64,
    pub(super) major_page_faults: u64,
    /// Threads.
    pub(super) processes: i64,
    pub(super) booted_at: i64,
}

impl MachineUse {
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (memory, stat, vmstat) = (read("/proc/meminfo"), read("/proc/stat"), read("/proc/vmstat"));
        let load = read("/proc/loadavg");
        Self {
            cpu_ns: cpu_ns(&stat),
            memory_available: meminfo(&memory, "MemAvailable"),
            memory_free: meminfo(&memory, "MemFree"),
            memory_anonymous: meminfo(&memory, "AnonPages"),
            swap_free: meminfo(&memory, "SwapFree"),
            page_faults: number(&vmstat, "pgfault").unwrap_or(0),
            major_page_faults: number(&vmstat, "pgmajfault").unwrap_or(0),
            processes: load.split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse().ok()).unwrap_or(0),
            booted_at: number(&stat, "btime").unwrap_or(0),
        }
    }
}

/// The first line of /proc/stat counts hundredths of seconds; idle and iowait are no use.
fn cpu_ns(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|f| f.parse().ok()).collect();
    let busy: u64 = fields.iter().enumerate().filter(|(n, _)| !matches!(n, 3 | 4)).map(|(_, v)| v).sum();
    busy * 10_000_000
}

/// The value of one line `name value`.
fn number<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The interface of the route that leads everywhere, from /proc/net/route.
pub(super) fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then_some(name)
    })
}

/// Counters of a network namespace, from its `net/dev`: those of `main`, and of all but loopback.
pub(super) fn network(dev: &str, main: &str, time: &Value) -> Value {
    let interfaces: Vec<Value> = dev.lines().filter_map(interface).collect();
    let mut out = interfaces.iter().find(|i| i["name"] == main).cloned().unwrap_or_else(|| json!({ "name": "" }));
    out["time"] = time.clone();
    out["interfaces"] = Value::Array(interfaces);
    out
}

fn interface(line: &str) -> Option<Value> {
    let (name, counters) = line.split_once(':')?;
    let name = name.trim();
    let counters: Vec<u64> = counters.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    if name == "lo" || counters.len() < 11 {
        return None;
    }
    Some(json!({
        "name": name,
        "rxBytes": counters[0],
        "rxErrors": counters[2],
        "txBytes": counters[8],
        "txErrors": counters[10],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_no_use() {
        assert_eq!(cpu_ns("cpu  100 0 50 9999 8888 0 0 5 0 0\ncpu0 1\n"), 155 * 10_000_000);
        assert_eq!(cpu_ns(""), 0);
    }

    #[test]
    fn counters_of_interfaces_are_read() {
        let routes = "Iface\tDestination\tGateway\neth1\t0000A8C0\t0\neth0\t00000000\t0101A8C0\n";
        assert_eq!(default_interface(routes), Some("eth0"));
        assert_eq!(default_interface(""), None);
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                   eth0:  100 5 1 0 0 0 0 0 200 6 2 0 0 0 0 0\n";
        let one = json!({"name": "eth0", "rxBytes": 100, "rxErrors": 1, "txBytes": 200, "txErrors": 2});
        let mut expected = one.clone();
        expected["time"] = json!("now");
        expected["interfaces"] = json!([one]);
        assert_eq!(network(dev, "eth0", &json!("now")), expected);
        assert_eq!(number::<u64>("pgfault 7\npgfaults 8\n", "pgfault"), Some(7));
    }
}
