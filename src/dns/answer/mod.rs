//! The DNS specification of Kubernetes, version 1.1.0, as a pure function.
//!
//! Names below the cluster's domain and reverse names of its addresses are answered here, with
//! authority; everything else is [`Outcome::NotOurs`]. A name that does not exist and a name without
//! records of the asked type both carry the SOA record, so that resolvers may remember the no.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::question::Question;
use crate::zone::{Endpoint, Pointer, Port, Service, ServiceRecord, Zone};

/// Of every record: clients that reuse an answer may go to an endpoint that is gone.
const TTL: u32 = 5;
const SPECIFICATION: &str = "1.1.0";

/// What is to be done with a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Reply(Reply),
    /// The name is another name for this one, whose answer belongs to the reply.
    Alias(Name),
    NotOurs,
}

/// An authoritative reply.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    /// The SOA record, when there is no answer.
    pub(crate) authority: Vec<Record>,
}

/// What a name stands for.
enum Found {
    Data(Data),
    Alias(Name),
    Nothing,
}

/// Records of all types; those of the asked type are picked from it.
#[derive(Default)]
struct Data {
    records: Vec<RData>,
    /// Addresses of names in the records.
    additionals: Vec<(Name, RData)>,
}

/// Answers one question. The name keeps the case that the client wrote.
pub(crate) fn answer(zone: &Zone, name: &Name, kind: RecordType) -> Outcome {
    let found = if zone.origin.domain.zone_of(name) {
        forward(zone, name, kind)
    } else if let Some(address) = reverse_address(name) {
        match reverse(zone, address) {
            Some(found) => found,
            None => return Outcome::NotOurs,
        }
    } else {
        return Outcome::NotOurs;
    };
    match found {
        Found::Data(data) => Outcome::Reply(reply(zone, name, kind, data)),
        Found::Nothing => Outcome::Reply(negative(zone, ResponseCode::NXDomain)),
        Found::Alias(target) if kind == RecordType::CNAME => {
            let data = Data { records: vec![RData::CNAME(CNAME(target))], additionals: Vec::new() };
            Outcome::Reply(reply(zone, name, kind, data))
        }
        Found::Alias(target) => Outcome::Alias(target),
    }
}

/// The record that says so of an alias.
pub(crate) fn alias(name: &Name, target: &Name) -> Record {
    record(name.clone(), RData::CNAME(CNAME(target.clone())))
}

fn reply(zone: &Zone, name: &Name, kind: RecordType, data: Data) -> Reply {
    let records = data.records.into_iter().filter(|data| data.record_type() == kind);
    let answers: Vec<_> = records.map(|data| record(name.clone(), data)).collect();
    if answers.is_empty() {
        return negative(zone, ResponseCode::NoError);
    }
    let additionals = data.additionals.into_iter().map(|(name, data)| record(name, data)).collect();
    Reply { code: ResponseCode::NoError, answers, additionals, authority: Vec::new() }
}

fn negative(zone: &Zone, code: ResponseCode) -> Reply {
    let soa = record(zone.origin.domain.clone(), RData::SOA(soa(zone)));
    Reply { code, answers: Vec::new(), additionals: Vec::new(), authority: vec![soa] }
}

fn record(name: Name, data: RData) -> Record {
    Record::from_rdata(name, TTL, data)
}

fn forward(zone: &Zone, name: &Name, kind: RecordType) -> Found {
    let count = usize::from(name.num_labels().saturating_sub(zone.origin.domain.num_labels()));
    // Labels that are not text are in no Kubernetes name.
    let labels: Option<Vec<String>> =
        name.iter().take(count).map(|label| std::str::from_utf8(label).ok().map(str::to_lowercase)).collect();
    let Some(labels) = labels else { return Found::Nothing };
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match Question::parse(&labels) {
        Question::Domain => Found::Data(domain(zone)),
        Question::DnsVersion => Found::records([RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]))]),
        Question::NameServer => Found::records(zone.origin.servers.iter().map(|ip| address((*ip).into()))),
        Question::Between => Found::records([]),
        Question::Namespace(namespace) => exists(zone.has_namespace(namespace)),
        Question::Pod { namespace, pod } => find_pod(zone, namespace, pod),
        Question::Service { namespace, service } => match zone.service(namespace, service) {
            Some(found) => find_service(zone, [service, namespace], found, kind),
            None => Found::Nothing,
        },
        Question::Endpoint { namespace, service, host } => match zone.service(namespace, service) {
            Some(found) => {
                let endpoints = found.endpoints().filter(|(endpoint, _)| endpoint.host() == host);
                of_endpoints(zone, [service, namespace], endpoints, kind, |_| true)
            }
            None => Found::Nothing,
        },
        Question::Port { namespace, service, port, protocol } => match zone.service(namespace, service) {
            Some(found) => find_port(zone, [service, namespace], found, |p| p.is_named(port, protocol)),
            None => Found::Nothing,
        },
        Question::Unknown => Found::Nothing,
    }
}

impl Found {
    fn records(records: impl IntoIterator<Item = RData>) -> Self {
        Self::Data(Data { records: records.into_iter().collect(), additionals: Vec::new() })
    }
}

/// A name without records of its own.
fn exists(yes: bool) -> Found {
    if yes { Found::records([]) } else { Found::Nothing }
}

fn domain(zone: &Zone) -> Data {
    let server = name_server(zone);
    let addresses = zone.origin.servers.iter().map(|ip| (server.clone(), address((*ip).into())));
    let additionals = addresses.collect();
    Data { records: vec![RData::SOA(soa(zone)), RData::NS(NS(server))], additionals }
}

fn find_service(zone: &Zone, name: [&str; 2], service: &Service, kind: RecordType) -> Found {
    match service.record() {
        None => Found::Nothing,
        Some(ServiceRecord::Alias(target)) => Found::Alias(target.clone()),
        Some(ServiceRecord::Headless) => of_endpoints(zone, name, service.endpoints(), kind, |_| true),
        Some(ServiceRecord::ClusterIp { .. }) if kind == RecordType::SRV => find_port(zone, name, service, |_| true),
        Some(ServiceRecord::ClusterIp { addresses, .. }) => Found::records(addresses.iter().map(|ip| address(*ip))),
    }
}

/// The SRV records of some of a Service's ports.
fn find_port(zone: &Zone, name: [&str; 2], service: &Service, wanted: impl Fn(&Port) -> bool) -> Found {
    let (addresses, ports) = match service.record() {
        Some(ServiceRecord::ClusterIp { addresses, ports }) => (addresses, ports),
        Some(ServiceRecord::Headless) => {
            return of_endpoints(zone, name, service.endpoints(), RecordType::SRV, wanted);
        }
        Some(ServiceRecord::Alias(_)) | None => return Found::Nothing,
    };
    let Some(target) = service_name(zone, name, None) else { return Found::Nothing };
    let records: Vec<_> = ports.iter().filter(|p| wanted(p)).map(|p| srv(100, p.number, &target)).collect();
    if records.is_empty() {
        return Found::Nothing;
    }
    let additionals = addresses.iter().map(|ip| (target.clone(), address(*ip))).collect();
    Found::Data(Data { records, additionals })
}

/// Addresses of endpoints, or SRV records that name each of them. Without endpoints the name does
/// not exist.
fn of_endpoints<'z>(
    zone: &Zone,
    name: [&str; 2],
    endpoints: impl Iterator<Item = (&'z Endpoint, &'z [Port])>,
    kind: RecordType,
    wanted: impl Fn(&Port) -> bool,
) -> Found {
    let mut data = Data::default();
    let mut targets: Vec<(Name, &Port)> = Vec::new();
    let mut any = false;
    for (endpoint, ports) in endpoints {
        any = true;
        if kind != RecordType::SRV {
            push_new(&mut data.records, address(endpoint.address));
            continue;
        }
        let Some(target) = service_name(zone, name, Some(&endpoint.host())) else { continue };
        for port in ports.iter().filter(|port| wanted(port)) {
            push_new(&mut targets, (target.clone(), port));
            push_new(&mut data.additionals, (target.clone(), address(endpoint.address)));
        }
    }
    if !any || (kind == RecordType::SRV && targets.is_empty()) {
        return Found::Nothing;
    }
    // Shares of a hundred, as resolvers that weigh expect; never zero, which means hardly ever.
    let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
    data.records.extend(targets.iter().map(|(target, port)| srv(weight, port.number, target)));
    Found::Data(data)
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// A pod's name is its address, whether or not there is such a pod.
fn find_pod(zone: &Zone, namespace: &str, pod: &str) -> Found {
    if !zone.has_namespace(namespace) {
        return Found::Nothing;
    }
    let v4 = pod.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::from);
    match v4.or_else(|_| pod.replace('-', ":").parse::<IpAddr>()) {
        Ok(ip) => Found::records([address(ip)]),
        Err(_) => Found::Nothing,
    }
}

/// The address that a reverse name stands for.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Absent when the address is somebody else's to name.
fn reverse(zone: &Zone, address: IpAddr) -> Option<Found> {
    let pointers = zone.pointers(address);
    if pointers.is_empty() {
        return zone.origin.ranges.iter().any(|range| range.contains(&address)).then_some(Found::Nothing);
    }
    let mut records = Vec::new();
    for Pointer { service, host } in pointers {
        if let Some(name) = service_name(zone, [&service.name, &service.namespace], host.as_deref()) {
            push_new(&mut records, RData::PTR(PTR(name)));
        }
    }
    Some(Found::records(records))
}

/// The name of a Service, or of an endpoint of it.
fn service_name(zone: &Zone, [service, namespace]: [&str; 2], host: Option<&str>) -> Option<Name> {
    let labels = host.into_iter().chain([service, namespace, "svc"]);
    Name::from_labels(labels.map(str::as_bytes)).ok()?.append_domain(&zone.origin.domain).ok()
}

fn name_server(zone: &Zone) -> Name {
    below(zone, &["ns", "dns"])
}

/// A short, fixed name below the domain.
fn below(zone: &Zone, labels: &[&str]) -> Name {
    Name::from_labels(labels.iter().map(|label| label.as_bytes()))
        .and_then(|name| name.append_domain(&zone.origin.domain))
        .unwrap_or_else(|_| zone.origin.domain.clone())
}

fn soa(zone: &Zone) -> SOA {
    const REFRESH: i32 = 7200;
    const RETRY: i32 = 1800;
    const EXPIRE: i32 = 86_400;
    SOA::new(name_server(zone), below(zone, &["hostmaster"]), zone.serial, REFRESH, RETRY, EXPIRE, TTL)
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn srv(weight: u16, port: u16, target: &Name) -> RData {
    RData::SRV(SRV::new(0, weight, port, target.clone()))
}

#[cfg(test)]
mod tests;
