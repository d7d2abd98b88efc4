use super::*;

fn resolve(options: ServerOptions) -> anyhow::Result<ServerConfig> {
    ServerConfig::from_options(options, "Pi-Zero", || Ok([192, 168, 1, 2].into()))
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = resolve(ServerOptions::default()).unwrap();
    assert_eq!(config.node_name, "pi-zero");
    assert_eq!(config.listen.to_string(), "0.0.0.0:6443");
    assert_eq!(config.cluster_cidr.to_string(), "10.244.0.0/16");
    assert_eq!(config.service_ip().to_string(), "10.96.0.1");
    assert_eq!(config.cluster_dns.to_string(), "10.96.0.10");
    assert!(config.run_agent);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let file = ServerOptions::parse("node-name: from-file\nhttps-port: 7443\ntls-san: [a, b]\n").unwrap();
    let cli = ServerOptions { node_name: Some("from-flag".to_owned()), ..ServerOptions::default() };
    let config = resolve(cli.over(file)).unwrap();
    assert_eq!(config.node_name, "from-flag");
    assert_eq!(config.listen.port(), 7443);
    assert_eq!(config.tls_san, ["a", "b"]);
}

#[track_caller]
fn refused(options: ServerOptions, word: &str) {
    let error = resolve(options).unwrap_err().to_string();
    assert!(error.contains(word), "{error}");
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let pods = ServerOptions { cluster_cidr: Some("10.96.0.0/12".parse().unwrap()), ..ServerOptions::default() };
    refused(pods, "overlap");
    let dns = ServerOptions { cluster_dns: Some([10, 0, 0, 1].into()), ..ServerOptions::default() };
    refused(dns, "--cluster-dns 10.0.0.1");
    let name = ServerOptions { node_name: Some("My_Node".to_owned()), ..ServerOptions::default() };
    refused(name, "My_Node");
    let small = ServerOptions { cluster_cidr: Some("10.244.0.0/26".parse().unwrap()), ..ServerOptions::default() };
    refused(small, "/24");
}

#[test]
fn the_store_gets_a_quarter_of_the_memory_or_what_is_said() {
    const GIB: u64 = 1 << 30;
    for (given, memory, expected) in [
        (None, Some(16 * GIB), 2 * GIB),
        (None, Some(GIB), GIB / 4),
        (None, Some(GIB / 8), GIB / 16),
        (None, None, 2 * GIB),
        (Some("512Mi"), Some(GIB), GIB / 2),
        (Some("4Gi"), Some(GIB), 4 * GIB),
    ] {
        assert_eq!(store_limit_of(given, memory).unwrap(), expected, "{given:?} of {memory:?}");
    }
    let file = ServerOptions::parse("store-limit: 100Mi\n").unwrap();
    assert_eq!(resolve(file).unwrap().store_limit, 100 << 20);
    for wrong in ["1Mi", "-1Gi", "much"] {
        refused(ServerOptions { store_limit: Some(wrong.to_owned()), ..ServerOptions::default() }, "--store-limit");
    }
}

#[test]
fn a_wrong_key_in_the_file_is_named() {
    let error = format!("{:#}", ServerOptions::parse("node-nam: x\n").unwrap_err());
    assert!(error.contains("node-nam"), "{error}");
    let error = format!("{:#}", ServerOptions::parse("https-port: eighty\n").unwrap_err());
    assert!(error.contains("https-port"), "{error}");
}

#[test]
fn an_error_says_where_it_is_and_shows_little_of_the_file() {
    let secret = "hunter2hunter2";
    for text in [
        format!("root:x:0:0:root:/root:/bin/bash\nuser:{secret}{secret}\"{secret}:/home\n"),
        format!("{secret}-{secret}: x\n"),
        format!("https-port: {secret}-{secret}\n"),
        format!("- {secret}{secret}\n"),
        format!("token: [{secret}{secret}\n"),
    ] {
        let error = format!("{:#}", ServerOptions::parse(&text).unwrap_err());
        assert!(
            !error.contains(&format!("{secret}{secret}")) && !error.contains(&format!("{secret}-hunter")),
            "{error}"
        );
        assert!(error.contains("line ") && error.contains("column "), "{error}");
    }
}
