use api::object::ObjectKey;
use serde_json::json;

use super::*;
use crate::zone::ServiceRecord;
use crate::zone::fixtures::zone;

/// A cluster IP, a headless set with and without hostnames, one without endpoints, aliases.
fn shop() -> Zone {
    zone()
        .namespace("shop")
        .with_service(
            "shop",
            "web",
            &json!({"clusterIP": "10.96.0.7", "ports": [
                {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
            ]}),
        )
        .with_slice(
            "shop",
            "web",
            &json!([{"name": "http", "port": 8080, "protocol": "TCP"}]),
            &json!([{"addresses": ["10.244.0.9"]}]),
        )
        .with_service("shop", "db", &json!({"clusterIP": "None"}))
        .with_slice(
            "shop",
            "db",
            &json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]),
            &json!([
                {"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.3"]},
                {"addresses": ["10.244.0.4"], "hostname": "db-2", "conditions": {"ready": false}},
            ]),
        )
        .with_service("shop", "empty", &json!({"clusterIP": "None"}))
        .with_service("shop", "docs", &json!({"type": "ExternalName", "externalName": "docs.example.org"}))
        .with_service(
            "shop",
            "shortcut",
            &json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}),
        )
        .with_service("shop", "address", &json!({"type": "ExternalName", "externalName": "192.0.2.1"}))
}

const SOA: &str = "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 0 7200 1800 86400 5";

fn ask(zone: &Zone, name: &str, kind: RecordType) -> Outcome {
    answer(zone, &Name::from_ascii(name).unwrap(), kind)
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(name: &str, kind: RecordType, expected: &[&str]) -> Reply {
    let Outcome::Reply(reply) = ask(&shop(), name, kind) else { panic!("no reply to {name}") };
    assert_eq!(
        (reply.code, texts(&reply.answers)),
        (ResponseCode::NoError, expected.iter().map(|&e| e.into()).collect())
    );
    let authority: &[&str] = if expected.is_empty() { &[SOA] } else { &[] };
    assert_eq!(texts(&reply.authority), authority, "authority of {name}");
    reply
}

#[track_caller]
fn check_missing(name: &str, kind: RecordType) {
    let Outcome::Reply(reply) = ask(&shop(), name, kind) else { panic!("no reply to {name}") };
    assert_eq!(reply.code, ResponseCode::NXDomain, "{name}");
    assert_eq!((texts(&reply.answers), texts(&reply.authority)), (vec![], vec![SOA.to_owned()]), "{name}");
}

#[test]
fn services_have_addresses() {
    use RecordType::{A, AAAA, TXT};
    check("web.shop.svc.cluster.local.", A, &["web.shop.svc.cluster.local. 5 IN A 10.96.0.7"]);
    check("WEB.Shop.SVC.cluster.LOCAL.", A, &["WEB.Shop.SVC.cluster.LOCAL. 5 IN A 10.96.0.7"]);
    check("web.shop.svc.cluster.local.", AAAA, &[]);
    check("web.shop.svc.cluster.local.", TXT, &[]);
    check(
        "db.shop.svc.cluster.local.",
        A,
        &["db.shop.svc.cluster.local. 5 IN A 10.244.0.2", "db.shop.svc.cluster.local. 5 IN A 10.244.0.3"],
    );
    check("db.shop.svc.cluster.local.", AAAA, &[]);
    check_missing("empty.shop.svc.cluster.local.", A);
    check_missing("none.shop.svc.cluster.local.", A);
    check_missing("web.none.svc.cluster.local.", A);
}

#[test]
fn endpoints_have_names_of_their_own() {
    use RecordType::A;
    check("db-0.db.shop.svc.cluster.local.", A, &["db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.2"]);
    check("10-244-0-3.db.shop.svc.cluster.local.", A, &["10-244-0-3.db.shop.svc.cluster.local. 5 IN A 10.244.0.3"]);
    check("10-244-0-9.web.shop.svc.cluster.local.", A, &["10-244-0-9.web.shop.svc.cluster.local. 5 IN A 10.244.0.9"]);
    // It has a hostname, and the other is not ready.
    check_missing("10-244-0-2.db.shop.svc.cluster.local.", A);
    check_missing("db-2.db.shop.svc.cluster.local.", A);
}

#[test]
fn named_ports_have_srv_records() {
    use RecordType::{A, SRV};
    let reply = check(
        "_http._tcp.web.shop.svc.cluster.local.",
        SRV,
        &["_http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 100 80 web.shop.svc.cluster.local."],
    );
    assert_eq!(texts(&reply.additionals), ["web.shop.svc.cluster.local. 5 IN A 10.96.0.7"]);
    check(
        "_dns._udp.web.shop.svc.cluster.local.",
        SRV,
        &["_dns._udp.web.shop.svc.cluster.local. 5 IN SRV 0 100 53 web.shop.svc.cluster.local."],
    );
    let reply = check(
        "_sql._tcp.db.shop.svc.cluster.local.",
        SRV,
        &[
            "_sql._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 50 5432 db-0.db.shop.svc.cluster.local.",
            "_sql._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 50 5432 10-244-0-3.db.shop.svc.cluster.local.",
        ],
    );
    assert_eq!(
        texts(&reply.additionals),
        [
            "db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.2",
            "10-244-0-3.db.shop.svc.cluster.local. 5 IN A 10.244.0.3",
        ]
    );
    check("_http._tcp.web.shop.svc.cluster.local.", A, &[]);
    check_missing("_http._udp.web.shop.svc.cluster.local.", SRV);
    check_missing("_none._tcp.web.shop.svc.cluster.local.", SRV);
    check_missing("_none._tcp.db.shop.svc.cluster.local.", SRV);
    check_missing("http._tcp.web.shop.svc.cluster.local.", SRV);
}

#[test]
fn aliases_lead_on() {
    use RecordType::{A, CNAME};
    check("docs.shop.svc.cluster.local.", CNAME, &["docs.shop.svc.cluster.local. 5 IN CNAME docs.example.org."]);
    let target = |name: &str| Outcome::Alias(Name::from_ascii(name).unwrap());
    assert_eq!(ask(&shop(), "docs.shop.svc.cluster.local.", A), target("docs.example.org."));
    assert_eq!(ask(&shop(), "shortcut.shop.svc.cluster.local.", A), target("web.shop.svc.cluster.local."));
    check_missing("address.shop.svc.cluster.local.", A);
}

#[test]
fn pods_are_named_by_their_addresses() {
    use RecordType::{A, AAAA};
    check("10-244-7-7.shop.pod.cluster.local.", A, &["10-244-7-7.shop.pod.cluster.local. 5 IN A 10.244.7.7"]);
    check("fd00--7.shop.pod.cluster.local.", AAAA, &["fd00--7.shop.pod.cluster.local. 5 IN AAAA fd00::7"]);
    check("10-244-7-7.shop.pod.cluster.local.", AAAA, &[]);
    check_missing("web.shop.pod.cluster.local.", A);
    check_missing("10-244-7-7.none.pod.cluster.local.", A);
}

#[test]
fn the_domain_describes_itself() {
    use RecordType::{A, NS, SOA as SOA_TYPE, TXT};
    check("dns-version.cluster.local.", TXT, &["dns-version.cluster.local. 5 IN TXT 1.1.0"]);
    check("cluster.local.", SOA_TYPE, &[SOA]);
    check("cluster.local.", NS, &["cluster.local. 5 IN NS ns.dns.cluster.local."]);
    check("ns.dns.cluster.local.", A, &["ns.dns.cluster.local. 5 IN A 10.96.0.10"]);
    for between in
        ["cluster.local.", "svc.cluster.local.", "pod.cluster.local.", "dns.cluster.local.", "shop.svc.cluster.local."]
    {
        check(between, A, &[]);
    }
    check_missing("none.svc.cluster.local.", A);
    check_missing("a.b.c.d.shop.svc.cluster.local.", A);
    check_missing("local.cluster.local.", A);
}

#[test]
fn addresses_have_names() {
    use RecordType::{A, PTR};
    check("7.0.96.10.in-addr.arpa.", PTR, &["7.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."]);
    check("2.0.244.10.in-addr.arpa.", PTR, &["2.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local."]);
    check("7.0.96.10.in-addr.arpa.", A, &[]);
    check_missing("99.0.244.10.in-addr.arpa.", PTR);
    assert_eq!(ask(&shop(), "1.1.168.192.in-addr.arpa.", PTR), Outcome::NotOurs);
    assert_eq!(ask(&shop(), "10.in-addr.arpa.", PTR), Outcome::NotOurs);
}

#[test]
fn other_names_are_not_ours() {
    for name in ["example.org.", "local.", "notcluster.local.", "."] {
        assert_eq!(ask(&shop(), name, RecordType::A), Outcome::NotOurs, "{name}");
    }
}

#[test]
fn what_is_gone_leaves_no_name_behind() {
    use RecordType::{A, PTR};
    let mut zone = shop();
    let (web, db) = (ObjectKey::new("shop", "web"), ObjectKey::new("shop", "db"));
    let moved = ServiceRecord::of(serde_json::from_value(json!({"spec": {"clusterIP": "10.96.0.8"}})).unwrap());
    zone.set_service(&web, moved);
    zone.set_slice(&db, None);
    let missing = |zone: &Zone, name: &str, kind| match ask(zone, name, kind) {
        Outcome::Reply(reply) => reply.code == ResponseCode::NXDomain,
        Outcome::Alias(_) | Outcome::NotOurs => false,
    };
    assert!(missing(&zone, "7.0.96.10.in-addr.arpa.", PTR));
    assert!(!missing(&zone, "8.0.96.10.in-addr.arpa.", PTR));
    assert!(missing(&zone, "2.0.244.10.in-addr.arpa.", PTR));
    assert!(missing(&zone, "db.shop.svc.cluster.local.", A));

    zone.set_namespace("shop", false);
    assert!(!missing(&zone, "web.shop.svc.cluster.local.", A), "the Service is still there");
    for service in ["web", "db", "empty", "docs", "shortcut", "address"] {
        zone.set_service(&ObjectKey::new("shop", service), None);
    }
    assert!(missing(&zone, "shop.svc.cluster.local.", A));
    zone.set_slice(&web, None);
    assert!(missing(&zone, "9.0.244.10.in-addr.arpa.", PTR));
}
