//! The formats that names, keys and values must have, each as a function that returns upstream's
//! complaints about a text (none when it is well formed).
//!
//! They are checked byte by byte: a list of regular expressions would cost more than the rest of a
//! Pod's validation. The expressions stand in the messages only, where users expect them.

use super::address_form::{HOST_BITS, LEADING_ZEROS, LEADING_ZEROS_IN_RANGE, MAPPED, MAPPED_RANGE, Written, is_mapped};

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

pub const LABEL_MAX: usize = 63;
pub const SUBDOMAIN_MAX: usize = 253;

/// Upstream's sentence for text that misses a pattern.
fn pattern(rule: &str, format: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{rule} (regex used for validation is '{format}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{format}')", examples.join(" or "))
}

#[must_use]
pub fn max_length(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

#[must_use]
pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Starts and ends as `edge` allows, with `inner` between.
fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => edge(first) && edge(last) && bytes.iter().all(|&b| inner(b)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    framed(text, lower_alnum, |b| lower_alnum(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// One DNS label, in lower case.
#[must_use]
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_MAX {
        wrong.push(max_length(LABEL_MAX));
    }
    if is_label(value) {
        return wrong;
    }
    wrong.push(if is_subdomain(value) {
        "must not contain dots".to_owned()
    } else {
        pattern(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            LABEL_FORMAT,
            &["my-name", "123-abc"],
        )
    });
    wrong
}

/// DNS labels joined by dots, in lower case.
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    if !is_subdomain(value) {
        wrong.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &format!("{LABEL_FORMAT}(\\.{LABEL_FORMAT})*"),
            &["example.com"],
        ));
    }
    wrong
}

/// As [`dns1123_subdomain`], but underscores may stand where hyphens may.
#[must_use]
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    let part = |text: &str| framed(text, |b| lower_alnum(b) || b == b'_', |b| lower_alnum(b) || b"-_".contains(&b));
    if !value.split('.').all(part) {
        wrong.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            "[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*",
            &["example.com"],
        ));
    }
    wrong
}

/// A label that starts with a letter, as service names do.
#[must_use]
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_MAX {
        wrong.push(max_length(LABEL_MAX));
    }
    if !is_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        wrong.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// A subdomain whose first label may be `*`.
#[must_use]
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        wrong.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{LABEL_FORMAT}(\\.{LABEL_FORMAT})*"),
            &["*.example.com"],
        ));
    }
    wrong
}

/// The key of a label or annotation: an optional subdomain, a slash, a name.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut parts = value.splitn(3, '/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(""), Some(name), None) => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        (Some(prefix), Some(name), None) => {
            wrong.extend(dns1123_subdomain(prefix).into_iter().map(|w| format!("prefix part {w}")));
            name
        }
        _ => {
            let rule = pattern(QUALIFIED_RULE, QUALIFIED_FORMAT, &["MyName", "my.name", "123-abc"]);
            wrong.push(format!(
                "a qualified name {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return wrong;
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part {}", max_length(LABEL_MAX)));
    }
    if !is_qualified(name) {
        let rule = pattern(QUALIFIED_RULE, QUALIFIED_FORMAT, &["MyName", "my.name", "123-abc"]);
        wrong.push(format!("name part {rule}"));
    }
    wrong
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_MAX {
        wrong.push(max_length(LABEL_MAX));
    }
    if !value.is_empty() && !is_qualified(value) {
        wrong.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// `example.com/path`: a subdomain, a slash and a path.
#[must_use]
pub fn domain_prefixed_path(value: &str) -> Vec<String> {
    let Some((host, path)) = value.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty()) else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()];
    };
    let mut wrong = dns1123_subdomain(host);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/%-._~!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(allowed) {
        wrong.push(pattern("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]));
    }
    wrong
}

/// The key of a ConfigMap or Secret, which becomes a file name.
#[must_use]
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        wrong.push(max_length(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        wrong.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        other if other.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// The name of an environment variable.
#[must_use]
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![inclusive_range(1, 65535)] }
}

/// The name of a port, as IANA names services.
#[must_use]
pub fn port_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 15 {
        wrong.push(max_length(15));
    }
    if !value.bytes().all(|b| lower_alnum(b) || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

#[must_use]
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `25%`.
#[must_use]
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must consist of a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// An address that is written in the one way that names it.
#[must_use]
fn canonical_ip_address(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.to_string() != value => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        Ok(_) | Err(_) => ip_address(value),
    }
}

#[must_use]
pub fn ip_address(value: &str) -> Vec<String> {
    let why = match Written::ip(value) {
        None => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        Some(ip) if ip.zeros => LEADING_ZEROS,
        Some(ip) if is_mapped(ip.value) => MAPPED,
        Some(_) => return Vec::new(),
    };
    vec![why.to_owned()]
}

#[must_use]
pub fn cidr(value: &str) -> Vec<String> {
    let why = match Written::cidr(value) {
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        Some(range) if range.zeros => LEADING_ZEROS_IN_RANGE,
        Some(range) if is_mapped(range.value.addr()) => MAPPED_RANGE,
        Some(range) if range.value.trunc() != range.value => HOST_BITS,
        Some(_) => return Vec::new(),
    };
    vec![why.to_owned()]
}

/// What may be one segment of a URL path: the weakest rule for a name.
#[must_use]
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].into_iter().filter(|c| value.contains(c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The rule that the names of one kind follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Most kinds: labels joined by dots.
    Subdomain,
    /// Namespaces and the kinds whose names become host names.
    Label,
    /// Services, whose names become environment variables too.
    Dns1035,
    /// RBAC and others whose names only have to fit into a URL.
    PathSegment,
    /// `ipaddresses`.
    Ip,
    /// `apiservices`, definitions and others that their own validation names.
    Any,
}

impl NameRule {
    /// Complaints about `name`. A prefix may end in a dash, since more will follow it.
    #[must_use]
    pub fn check(self, name: &str, is_prefix: bool) -> Vec<String> {
        let masked;
        let name = if is_prefix && name.len() > 1 && name.ends_with('-') {
            // `a-` and `a--` are fine before a suffix: the dashes at the end are looked through.
            masked = format!("{}a", &name[..name.len() - 1]);
            &masked
        } else {
            name
        };
        match self {
            Self::Subdomain => dns1123_subdomain(name),
            Self::Label => dns1123_label(name),
            Self::Dns1035 => dns1035_label(name),
            Self::PathSegment => path_segment(name),
            Self::Ip => canonical_ip_address(name),
            Self::Any => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_label_is_explained_in_full() {
        assert_eq!(
            dns1123_label("Web_1"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(dns1123_label("web-1").is_empty());
    }

    #[test]
    fn qualified_names_have_at_most_one_prefix() {
        assert!(qualified_name("app").is_empty());
        assert!(qualified_name("example.com/My_App.x").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert!(qualified_name("x/")[0].starts_with("name part must be non-empty"));
        assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must consist of"));
        assert!(qualified_name("Bad/x")[0].starts_with("prefix part a lowercase RFC 1123 subdomain"));
        assert!(qualified_name("-x")[0].starts_with("name part must consist of"));
    }

    #[test]
    fn other_formats_accept_and_refuse() {
        type Check = fn(&str) -> Vec<String>;
        let rows: [(Check, &str, &str); 16] = [
            (label_value, "", "a b"),
            (label_value, "v1.2_x", "-x"),
            (dns1123_subdomain, "a.b-c", "a..b"),
            (dns1035_label, "web", "1web"),
            (config_map_key, "a.b_C-1", "a/b"),
            (config_map_key, "x..", "..x"),
            (env_var_name, "1 odd-name", "a=b"),
            (port_name, "http-1", "80"),
            (port_name, "h2c", "a--b"),
            (percent, "25%", "%"),
            (path_segment, "system:node", "a/b"),
            (ip_address, "10.0.0.1", "10.0.0"),
            (ip_address, "FD00:0::1", "::ffff:10.0.0.1"),
            (ip_address, "0.0.0.0", "010.0.0.5"),
            (cidr, "10.0.0.0/8", "10.0.0.1/8"),
            (cidr, "FD00::/64", "10.0.0.0/08"),
        ];
        for (check, good, bad) in rows {
            assert!(check(good).is_empty(), "{good}: {:?}", check(good));
            assert!(!check(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_name_prefix_may_end_in_a_dash() {
        assert!(NameRule::Subdomain.check("web-", true).is_empty());
        assert!(!NameRule::Subdomain.check("web-", false).is_empty());
    }
}
