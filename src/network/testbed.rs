//! A network for tests: fresh namespaces of the real kernel, and servers and clients in them.
//!
//! ```text
//! outside (192.168.50.100) ── LAN ── host (192.168.50.11) ── pods (10.244.1.0/24)
//! ```
//! The test's own thread is in the host's namespace. Namespaces have no names: they end with the
//! process, however it ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

use crate::nft::{self, Batch};
use crate::pods::{HostPort, NetworkConfig, PodNetwork};
use crate::route::{self, Route, RouteChanges, Scope, Veth};

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 11);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 100);
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Longer than a lost packet takes to be sent again on a busy machine; only dropped ones wait so long.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs a test inside a fresh host; says so and passes when that is not permitted.
pub(crate) fn on_a_host(test: impl FnOnce(Host) + Send) {
    thread::scope(|scope| {
        let outcome = scope
            .spawn(|| {
                if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
                    println!("skipped: a network namespace needs root ({e})");
                    return;
                }
                test(Host::new());
            })
            .join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A network namespace, held open.
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self(thread::scope(|scope| scope.spawn(inside).join().unwrap()))
    }

    /// As the runtime would hand it over.
    pub(crate) fn file(&self) -> File {
        File::from(self.0.as_fd().try_clone_to_owned().unwrap())
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    }

    /// Whom a TCP connection reaches, and as whom.
    pub(crate) fn ask(&self, to: &str) -> io::Result<Answer> {
        self.run(|| ask(to))
    }

    /// The same over UDP.
    pub(crate) fn ask_udp(&self, to: &str) -> io::Result<Answer> {
        self.run(|| ask_udp(&udp_client(), to))
    }
}

/// What a server says of itself and of its client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) server: String,
    pub(crate) client: Ipv4Addr,
}

/// A connection that stays open: each line comes back with the server's name.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(to: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to.parse::<SocketAddr>().unwrap(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    pub(crate) fn ask(&mut self) -> io::Result<Answer> {
        self.0.write_all(b"?")?;
        let mut buffer = [0; 128];
        let size = self.0.read(&mut buffer)?;
        parse(&buffer[..size])
    }
}

/// Asks from the calling thread's namespace.
pub(crate) fn ask(to: &str) -> io::Result<Answer> {
    Connection::open(to)?.ask()
}

pub(crate) fn udp_client() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn ask_udp(socket: &UdpSocket, to: &str) -> io::Result<Answer> {
    socket.connect(to)?;
    socket.send(b"?")?;
    let mut buffer = [0; 128];
    let size = socket.recv(&mut buffer)?;
    parse(&buffer[..size])
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (server, client) = text.split_once(' ').ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Answer { server: server.to_owned(), client: client.parse().unwrap() })
}

fn answer(name: &str, client: SocketAddr) -> String {
    let IpAddr::V4(client) = client.ip() else { panic!("IPv6 in an IPv4 test") };
    format!("{name} {client}")
}

/// Serves TCP and UDP on a port in the calling thread's namespace until the process ends.
pub(crate) fn serve(name: &str, port: u16) {
    serve_at(name, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
}

/// The same at one address.
pub(crate) fn serve_at(name: &str, at: SocketAddrV4) {
    let (name, udp_name) = (name.to_owned(), name.to_owned());
    let listener = TcpListener::bind(at).unwrap();
    let socket = UdpSocket::bind(at).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let Ok(client) = stream.peer_addr() else { continue };
            let answer = answer(&name, client);
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(answer.as_bytes()).is_ok() {}
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            // The client may be gone; the next one is not.
            let _ = socket.send_to(answer(&udp_name, client).as_bytes(), client);
        }
    });
}

/// The host that the test's thread is on, with its neighbour.
pub(crate) struct Host {
    pub(crate) outside: Namespace,
    state: TempDir,
}

/// A pod with servers on port 8080.
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) namespace: Namespace,
    pub(crate) ip: Ipv4Addr,
}

impl Pod {
    pub(crate) fn endpoint(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, 8080)
    }
}

impl Host {
    fn new() -> Self {
        let outside = Namespace::new();
        let host = route::open().unwrap();
        let veth = Veth { host_name: "lan0", pod_name: "eth0", pod_namespace: outside.0.as_fd(), mtu: 1400 };
        RouteChanges::default().set_up(1).add_veth(veth).run(&host).unwrap();
        join_lan(&host, "lan0", HOST, OUTSIDE);
        outside.run(|| {
            let socket = route::open().unwrap();
            RouteChanges::default().set_up(1).run(&socket).unwrap();
            join_lan(&socket, "eth0", OUTSIDE, HOST);
            serve("outside", 8080);
        });
        Self { outside, state: tempfile::tempdir().unwrap() }
    }

    /// Opens the pod network; the directory stays the same, so a second time is a restart.
    pub(crate) fn open(&self) -> Arc<PodNetwork> {
        let config = NetworkConfig {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            cluster_dns: Some(DNS),
            state_dir: self.state.path().join("addresses"),
            mtu: None,
        };
        block_on(PodNetwork::open(config)).unwrap()
    }

    pub(crate) fn record_of(&self, address: Ipv4Addr) -> PathBuf {
        self.state.path().join("addresses").join(address.to_string())
    }

    pub(crate) fn start_pod(&self, network: &PodNetwork, uid: &str, host_ports: &[HostPort]) -> Pod {
        let namespace = Namespace::new();
        let attached = block_on(network.attach(uid, namespace.file(), host_ports)).unwrap();
        namespace.run(|| serve(uid, 8080));
        Pod { uid: uid.to_owned(), namespace, ip: attached.ip }
    }
}

fn join_lan(socket: &crate::netlink::Socket, name: &str, address: Ipv4Addr, neighbour: Ipv4Addr) {
    let link = route::link_by_name(socket, name).unwrap().unwrap().index;
    let lan = Route {
        destination: Ipv4Addr::new(192, 168, 50, 0),
        prefix: 24,
        gateway: None,
        source: None,
        link,
        scope: Scope::Link,
    };
    let default =
        Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Some(neighbour), scope: Scope::Global, ..lan };
    RouteChanges::default()
        .add_address(link, address)
        .set_up(link)
        .add_route(lan)
        .add_route(default)
        .run(socket)
        .unwrap();
}

/// On a runtime of the calling thread, whose blocking threads are in its namespace too.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// As an administrator might.
pub(crate) fn delete_table(name: &str) {
    let mut batch = Batch::new(name);
    batch.delete_table();
    batch.commit(&nft::open().unwrap()).unwrap();
}

/// A table as the `nft` program reads it; absent where it is not installed.
pub(crate) fn list_table(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "nft is the independent witness of our rules")]
    let output = std::process::Command::new("nft").args(["list", "table", "ip", name]).output();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "nft cannot print our rules: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(e) => {
            println!("skipped: the witness nft is missing ({e})");
            None
        }
    }
}
