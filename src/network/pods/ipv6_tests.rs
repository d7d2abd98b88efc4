//! Router advertisements and link-local addresses, from a pod that may do anything on its own link.

use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sockopt};
use tokio::time::Instant;

use super::*;
use crate::testbed::{Host, Namespace, block_on, on_a_host};

const PATIENCE: Duration = Duration::from_secs(10);

fn setting(link: &str, name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/{name}")).unwrap().trim().to_owned()
}

fn set(link: &str, name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/ipv6/conf/{link}/{name}"), value).unwrap();
}

/// Turns IPv6 on, as a pod with the right to would, without waiting for doubles of its address.
fn turn_on(link: &str) {
    for (name, value) in [("disable_ipv6", "1"), ("accept_dad", "0"), ("addr_gen_mode", "0"), ("disable_ipv6", "0")] {
        set(link, name, value);
    }
}

/// The link's addresses that are ready to be used.
fn addresses(link: &str) -> Vec<Ipv6Addr> {
    const TENTATIVE: u32 = 0x40;
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let of_link = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ready = u32::from_str_radix(fields[4], 16).unwrap() & TENTATIVE == 0;
        (fields[5] == link && ready).then(|| Ipv6Addr::from(u128::from_str_radix(fields[0], 16).unwrap()))
    };
    table.lines().filter_map(of_link).collect()
}

/// Links that IPv6 default routes leave by.
fn default_links() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
    let is_default = |fields: &[&str]| fields[0].bytes().all(|b| b == b'0') && fields[1] == "00" && fields[9] != "lo";
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|fields| is_default(fields)).map(|fields| fields[9].to_owned()).collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Sends a router advertisement with a prefix from `eth0` of a namespace to all nodes on the link.
fn advertise(from: &Namespace) {
    const LIFETIME: [u8; 2] = 1800u16.to_be_bytes();
    let mut message = vec![134, 0, 0, 0, 64, 0, LIFETIME[0], LIFETIME[1], 0, 0, 0, 0, 0, 0, 0, 0];
    // 2001:db8:bad::/64, on this link, for addresses of one's own making, valid for an hour.
    message.extend([3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    message.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0).octets());
    from.run(|| {
        turn_on("eth0");
        wait_for("a link-local address", || !addresses("eth0").is_empty());
        let pod = route::open().unwrap();
        let link = route::link_by_name(&pod, "eth0").unwrap().unwrap().index;
        let all_nodes = std::net::SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, link);
        let raw = socket::socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6);
        let raw = raw.unwrap();
        // Others than 255 come from behind a router and do not count.
        socket::setsockopt(&raw, sockopt::Ipv6MulticastHops, &255).unwrap();
        socket::sendto(raw.as_raw_fd(), &message, &SockaddrIn6::from(all_nodes), MsgFlags::empty()).unwrap();
    });
}

/// Only an advertisement by the neighbour on the LAN, whom the host trusts, makes a route: it is sent
/// last and passes the same queue, so what came before it has been seen.
fn only_the_lan_is_believed(host: &Host) {
    advertise(&host.outside);
    wait_for("the neighbour's route", || default_links().contains(&"lan0".to_owned()));
    assert_eq!(default_links(), ["lan0"]);
}

fn skipped() -> bool {
    let skipped = !Path::new("/proc/sys/net/ipv6").exists();
    if skipped {
        println!("skipped: this kernel has no IPv6");
    }
    skipped
}

fn host_end(pod: &crate::testbed::Pod) -> String {
    format!("pod{:08x}", u32::from(pod.ip))
}

#[test]
fn a_pod_does_not_become_the_hosts_router() {
    on_a_host(|host: Host| {
        if skipped() {
            return;
        }
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        assert_eq!(
            pod.namespace.run(|| (setting("eth0", "disable_ipv6"), addresses("eth0"))),
            ("1".to_owned(), vec![])
        );
        // Its own loopback address stays.
        pod.namespace.run(|| wait_for("::1", || addresses("lo") == [Ipv6Addr::LOCALHOST]));
        advertise(&pod.namespace);
        assert_eq!(addresses(&host_end(&pod)), [] as [Ipv6Addr; 0]);
        only_the_lan_is_believed(&host);
    });
}

#[test]
fn ipv6_goes_off_on_the_links_of_pods_that_run_already() {
    on_a_host(|host: Host| {
        if skipped() {
            return;
        }
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let link = host_end(&pod);
        let turned_on_by_others = || {
            set(&link, "accept_ra", "1");
            turn_on(&link);
            advertise(&pod.namespace);
            wait_for("the pod's route", || default_links() == [link.clone()]);
        };
        let off = || {
            assert_eq!(setting(&link, "disable_ipv6"), "1");
            assert_eq!(default_links(), [] as [String; 0]);
            assert_eq!(addresses(&link), [] as [Ipv6Addr; 0]);
            advertise(&pod.namespace);
        };
        turned_on_by_others();
        block_on(network.repair()).unwrap();
        off();
        turned_on_by_others();
        drop(network);
        let network = host.open();
        off();
        turned_on_by_others();
        block_on(network.attach("a", pod.namespace.file(), &[])).unwrap();
        assert_eq!(pod.namespace.run(|| setting("eth0", "disable_ipv6")), "1");
        off();
        only_the_lan_is_believed(&host);
    });
}
